"""Translates the keys of Hugging Face's configs that have no direct counterpart among ours.

A Part reads its keys, given our keys so far, and removes them from `keys`. It also writes them for
a ModelConfig. If their keys cannot express a config of ours, it writes the nearest values:
`model/huggingface/config_json.py` reads the result back and detects the difference.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model.transformer import parametrization
from model.transformer.config import ModelConfig

Keys = dict[str, Any]

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "relu2": "relu2",
}


@dataclass(frozen=True)
class Part:
    """A reader, (their keys, our keys so far) -> more of our keys, and a writer of their keys."""

    read: Callable[[Keys, Keys], Keys]
    write: Callable[[ModelConfig], Keys]


def activation(key: str, default: str, tanh: str) -> Part:
    """The activation, in their key `key`. `tanh` is this family's name for the tanh GELU."""

    def read(keys: Keys, ours: Keys) -> Keys:
        if key != "hidden_act":
            keys.pop("hidden_act", None)  # Gemma's newer classes have it but use `key`
        name = keys.pop(key, default)
        if name not in ACTIVATIONS:
            raise ValueError(f"{key}={name!r} is unknown; known are {', '.join(ACTIVATIONS)}")
        return {"activation": ACTIVATIONS[name]}

    def write(cfg: ModelConfig) -> Keys:
        return {key: tanh if cfg.activation == "gelu_tanh" else cfg.activation}

    return Part(read, write)


def _read_gemma_activation(keys: Keys, ours: Keys) -> Keys:
    """Gemma 1's config says "gelu", but the model uses the tanh GELU."""
    named = keys.pop("hidden_activation", None) or keys.pop("hidden_act", None) or "gelu"
    keys.pop("hidden_act", None)
    keys["hidden_act"] = "gelu_pytorch_tanh" if named == "gelu" else named
    return activation("hidden_act", "", "").read(keys, ours)


GEMMA_ACTIVATION = Part(
    _read_gemma_activation, activation("hidden_act", "", "gelu_pytorch_tanh").write
)


def _read_heads(keys: Keys, ours: Keys) -> Keys:
    """The head width. If it is not given, it is derived as in the class."""
    derived = ours["d_model"] // max(1, ours["n_heads"])  # ModelConfig rejects 0 heads
    return {"head_dim": keys.pop("head_dim", None) or derived}


HEADS = Part(_read_heads, lambda cfg: {"head_dim": cfg.head_dim})
EVEN_HEADS = Part(_read_heads, lambda cfg: {})


def _read_dropout(keys: Keys, ours: Keys) -> Keys:
    """Ignores the rates: we have one rate for all, and trained weights do not depend on it."""
    for key in ("resid_pdrop", "embd_pdrop"):
        keys.pop(key, None)
    return {}


DROPOUT = Part(
    _read_dropout,
    lambda cfg: {"resid_pdrop": cfg.dropout, "embd_pdrop": cfg.dropout, "attn_pdrop": 0.0},
)

# {type of scaling: {their key: ours}}.
ROPE_KEYS = {
    "default": {},
    "linear": {"factor": "rope_factor"},
    "llama3": {
        "factor": "rope_factor",
        "low_freq_factor": "rope_low_frequency",
        "high_freq_factor": "rope_high_frequency",
        "original_max_position_embeddings": "rope_original_context",
    },
    "longrope": {
        "short_factor": "rope_short_factors",
        "long_factor": "rope_long_factors",
        "original_max_position_embeddings": "rope_original_context",
    },
}
ROPE_NAMES = {"default": "none"}  # ours, if different
OLDER_NAMES = {"su": "longrope"}


def _scaling(rope: Keys, original: int | None, context: int) -> Keys:
    """Our keys from one dict of rotary keys. Raises ValueError for an unknown type or key."""
    rope = {key: value for key, value in rope.items() if value is not None}
    older = rope.pop("type", "default")
    kind = rope.pop("rope_type", older)
    kind = OLDER_NAMES.get(kind, kind)
    if kind not in ROPE_KEYS:
        raise ValueError(f"rope_type={kind!r} is unknown; known are {', '.join(ROPE_KEYS)}")
    if kind == "longrope":
        rope.setdefault("original_max_position_embeddings", original or context)
    ours = {"rope_scaling": ROPE_NAMES.get(kind, kind)}
    ours["rope_theta"] = float(rope.pop("rope_theta", 10_000.0))
    ours["rope_fraction"] = float(rope.pop("partial_rotary_factor", 1.0))
    if missing := ", ".join(theirs for theirs in ROPE_KEYS[kind] if theirs not in rope):
        raise ValueError(f"rope_type={kind!r} lacks {missing}; add what is missing")
    for theirs, key in ROPE_KEYS[kind].items():
        value = rope.pop(theirs)
        ours[key] = tuple(map(float, value)) if isinstance(value, list) else value
    if kind == "longrope":
        _check_longrope(rope, context / ours["rope_original_context"])
    if named := ", ".join(f"{key}={value!r}" for key, value in rope.items()):
        raise ValueError(
            f"{named} beside rope_type={kind!r} unknown; remove keys that do not change what the "
            "model computes"
        )
    return ours


def _check_longrope(rope: Keys, stretch: float) -> None:
    """Raises ValueError for factors that do not follow from the two contexts."""
    stretch = max(1.0, stretch)
    factor = rope.pop("factor", stretch)
    if abs(factor - stretch) > 1e-9 * stretch:
        raise ValueError(f"rope's factor={factor} is not max / original context, {stretch}")
    if "attention_factor" in rope:
        raise ValueError(
            f"rope's attention_factor={rope['attention_factor']} is not supported; ours is "
            "sqrt(1 + ln(max / original) / ln(original)): remove the key if it is equal"
        )


def _older_rope(keys: Keys) -> Keys | None:
    """The keys of transformers before version 5 as one dict; None if there are none."""
    rope = {}
    for key in ("rope_theta", "partial_rotary_factor"):
        if keys.get(key) is not None:
            rope[key] = keys[key]
        keys.pop(key, None)
    return (keys.pop("rope_scaling", None) or {}) | rope or None


def _read_rope(keys: Keys, ours: Keys) -> Keys:
    """Reads the newer form, the older form, or both if they are consistent."""
    original = keys.pop("original_max_position_embeddings", None)
    new, old = keys.pop("rope_parameters", None), _older_rope(keys)
    forms = [_scaling(form, original, ours["context_length"]) for form in (new, old) if form]
    if len(forms) == 2 and forms[0] != forms[1]:
        raise ValueError(
            f"rope_parameters={new} contradicts the older rope_theta and rope_scaling, {old}; "
            "remove one"
        )
    return forms[0] if forms else _scaling({}, original, ours["context_length"])


def _write_rope(cfg: ModelConfig) -> Keys:
    """Writes both forms: transformers before version 5 ignores the newer one, including theta."""
    kind = "default" if cfg.rope_scaling == "none" else cfg.rope_scaling
    rope = {theirs: getattr(cfg, ours) for theirs, ours in ROPE_KEYS[kind].items()}
    rope = {key: list(v) if isinstance(v, tuple) else v for key, v in rope.items()}
    new = rope | {"rope_type": kind, "rope_theta": cfg.rope_theta}
    old = {"rope_theta": cfg.rope_theta, "rope_scaling": None}
    if kind == "longrope":  # in the older form this key is outside the dict
        old["original_max_position_embeddings"] = rope.pop("original_max_position_embeddings")
        old["rope_scaling"] = {"type": kind} | rope
    elif kind != "default":
        old["rope_scaling"] = {"rope_type": kind} | rope
    return {"rope_parameters": new} | old


def _whole_heads(keys: Keys, ours: Keys) -> Keys:
    rope = _read_rope(keys, ours)
    if rope.pop("rope_fraction") != 1:
        raise ValueError("partial_rotary_factor is not 1, which this family's class ignores")
    return rope


def _write_partial(cfg: ModelConfig) -> Keys:
    keys = _write_rope(cfg)
    keys["rope_parameters"]["partial_rotary_factor"] = cfg.rope_fraction
    return keys | {"partial_rotary_factor": cfg.rope_fraction}


def _read_partial(keys: Keys, ours: Keys) -> Keys:
    for key in ("resid_pdrop", "embd_pdrop"):
        keys.pop(key, None)
    return _read_rope(keys, ours)


ROPE = Part(_whole_heads, _write_rope)
PARTIAL_ROPE = Part(_read_partial, _write_partial)


def _read_two_ropes(keys: Keys, ours: Keys) -> Keys:
    """Gemma 3 has one rotary encoding per type of layer. Local layers are never scaled."""
    new = keys.pop("rope_parameters", None)
    local = {"rope_theta": keys.pop("rope_local_base_freq", None) or 10_000.0}
    rope = {"rope_theta": keys.pop("rope_theta", None) or 1_000_000.0}
    rope = (keys.pop("rope_scaling", None) or {}) | rope
    if new:
        rope, local = new.get("full_attention", rope), new.get("sliding_attention", local)
    global_keys = _scaling(rope, None, ours["context_length"])
    local_keys = _scaling(local, None, ours["context_length"])
    if local_keys["rope_scaling"] != "none":
        raise ValueError(f"rope_parameters scales local layers, {local}; they must be default")
    if global_keys.pop("rope_fraction") != 1 or local_keys["rope_fraction"] != 1:
        raise ValueError("partial_rotary_factor is not 1, which this family's class ignores")
    return global_keys | {"rope_theta_local": local_keys["rope_theta"]}


def _write_two_ropes(cfg: ModelConfig) -> Keys:
    keys = _write_rope(cfg)
    local = {"rope_type": "default", "rope_theta": cfg.rope_theta_local or cfg.rope_theta}
    both = {"full_attention": keys["rope_parameters"], "sliding_attention": local}
    return keys | {"rope_parameters": both, "rope_local_base_freq": local["rope_theta"]}


TWO_ROPES = Part(_read_two_ropes, _write_two_ropes)


def _read_query_scale(keys: Keys, ours: Keys) -> Keys:
    scalar = keys.pop("query_pre_attn_scalar", None) or 256
    return {"query_scale": 0.0 if scalar == ours["head_dim"] else scalar**-0.5}


def _write_query_scale(cfg: ModelConfig) -> Keys:
    scalar = parametrization.scores(cfg) ** -2
    whole = round(scalar)
    close = whole and math.isclose(scalar, whole, rel_tol=1e-12)
    return {"query_pre_attn_scalar": whole if close else scalar}


QUERY_SCALE = Part(_read_query_scale, _write_query_scale)

LOCAL, GLOBAL = "sliding_attention", "full_attention"


def pattern(local: list[bool]) -> str:
    """The shortest window_pattern that makes these layers local."""
    letters = "".join("L" if one else "G" for one in local)
    repeats = (letters[:n] for n in range(1, len(letters) + 1))
    return next(p for p in repeats if (p * len(letters))[: len(letters)] == letters)


def _windows(keys: Keys, ours: Keys, window: int | None, local: list[bool]) -> Keys:
    """Our keys for a window and the local layers; `layer_types` overrides `local`."""
    types = keys.pop("layer_types", None)
    if types is not None:
        wrong = sorted(set(types) - {LOCAL, GLOBAL})
        if wrong or len(types) != ours["n_layers"]:
            raise ValueError(
                f"layer_types={types} must be {LOCAL} or {GLOBAL} for each of "
                f"{ours['n_layers']} layers"
            )
        local = [one == LOCAL for one in types]
    if not window or not any(local):
        return {}
    return {"window": window, "window_pattern": pattern(local)}


def _layer_types(cfg: ModelConfig) -> list[str]:
    return [LOCAL if cfg.is_local(layer) else GLOBAL for layer in range(cfg.n_layers)]


def window_everywhere(default: int | None) -> Part:
    """All layers are local if there is a window; `default` applies if the key is absent."""

    def read(keys: Keys, ours: Keys) -> Keys:
        window = keys.pop(
            "sliding_window", default
        )  # null means no window; an absent key, `default`
        return {"window": window or 0}

    return Part(read, lambda cfg: {"sliding_window": cfg.window or None})


def _read_even(keys: Keys, ours: Keys) -> Keys:
    """Gemma 2: layers 0, 2, … are local."""
    keys.pop("sliding_window_size", None)
    window = keys.pop("sliding_window", None) or 4096
    return _windows(keys, ours, window, [layer % 2 == 0 for layer in range(ours["n_layers"])])


def _write_window(cfg: ModelConfig) -> Keys:
    return {"sliding_window": cfg.window or 4096, "layer_types": _layer_types(cfg)}


WINDOW_EVEN = Part(_read_even, _write_window)


def _read_period(keys: Keys, ours: Keys) -> Keys:
    """Gemma 3: every sixth layer is global."""
    given = [keys.pop(key, None) for key in ("sliding_window_pattern", "_sliding_window_pattern")]
    period = given[0] or given[1] or 6
    window = keys.pop("sliding_window", None) or 4096
    return _windows(
        keys, ours, window, [(layer + 1) % period > 0 for layer in range(ours["n_layers"])]
    )


WINDOW_PERIOD = Part(_read_period, _write_window)


def _read_above(keys: Keys, ours: Keys) -> Keys:
    """Qwen: with use_sliding_window, layers from max_window_layers on are local."""
    window = keys.pop("sliding_window", None)
    used = keys.pop("use_sliding_window", False)
    first = keys.pop("max_window_layers", 28)
    local = [layer >= first for layer in range(ours["n_layers"])]
    return _windows(keys, ours, window if used else None, local)


def _write_above(cfg: ModelConfig) -> Keys:
    types = _layer_types(cfg)
    return {
        "use_sliding_window": LOCAL in types,
        "sliding_window": cfg.window or None,
        "max_window_layers": types.index(LOCAL) if LOCAL in types else cfg.n_layers,
        "layer_types": types,
    }


WINDOW_ABOVE = Part(_read_above, _write_above)
