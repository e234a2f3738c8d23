"""This file describes a Transformer completely: one frozen, validated, hashable dataclass."""

from dataclasses import dataclass, fields

CHOICES = {
    "norm": ("layernorm", "rmsnorm"),
    "norm_position": ("pre", "post", "both", "parallel"),
    "positions": ("learned", "sinusoidal", "rotary", "alibi", "none"),
    "rope_layout": ("half", "interleaved"),
    "rope_scaling": ("none", "linear", "llama3", "longrope"),
    "activation": ("gelu", "gelu_tanh", "silu", "relu", "relu2"),
    "init": ("gpt2", "normal", "fan_in"),
    "dtype": ("float32", "bfloat16"),
    "attention": ("auto", "xla", "splash", "cudnn", "ring"),
    "parametrization": ("standard", "mup", "completep"),
    "remat": ("none", "full", "attention", "projections", "dots", "dots_attention", "offload"),
}
# The sizes of the base shape that each parametrisation scales from; it ignores the others.
BASE_SIZES = {
    "standard": (),
    "mup": ("base_width", "base_head_dim"),
    "completep": ("base_width", "base_head_dim", "base_depth"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Every size is explicit here; `configs/base.py` documents the zeros that are derived.

    Raises ValueError, naming the key, its value and what would be valid.
    """

    vocab_size: int
    context_length: int
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    norm: str = "layernorm"
    norm_eps: float = 1e-5
    norm_bias: bool = True
    norm_offset: bool = False
    norm_position: str = "pre"
    qk_norm: bool = False
    positions: str = "learned"
    rope_theta: float = 10_000.0
    rope_theta_local: float = 0.0
    rope_layout: str = "half"
    rope_fraction: float = 1.0
    rope_scaling: str = "none"
    rope_factor: float = 1.0
    rope_original_context: int = 0
    rope_low_frequency: float = 1.0
    rope_high_frequency: float = 4.0
    rope_short_factors: tuple[float, ...] = ()
    rope_long_factors: tuple[float, ...] = ()
    window: int = 0
    window_pattern: str = "L"
    query_scale: float = 0.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    logit_scale: float = 1.0
    activation: str = "gelu_tanh"
    gated: bool = False
    attention_bias: bool = True
    out_bias: bool = True
    mlp_bias: bool = True
    embedding_scale: bool = False
    tie_embeddings: bool = True
    dropout: float = 0.0
    init: str = "gpt2"
    init_std: float = 0.02
    embedding_std: float = 0.0
    dtype: str = "float32"
    attention: str = "auto"
    parametrization: str = "standard"
    base_width: int = 0
    base_head_dim: int = 0
    base_depth: int = 0
    scan_layers: bool = False
    remat: str = "none"

    def __post_init__(self):
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise ValueError(
                    f"model.{key}={getattr(self, key)!r} is unknown; use one of {', '.join(known)}"
                )
        for key in ("rope_short_factors", "rope_long_factors"):
            object.__setattr__(self, key, tuple(getattr(self, key)))  # JSON knows lists alone
        for key in ("vocab_size", "context_length", "n_layers", "d_model", "n_heads", "n_kv_heads"):
            _at_least_one(key, getattr(self, key))
        _at_least_one("head_dim", self.head_dim)
        _at_least_one("d_ff", self.d_ff)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"model.n_kv_heads={self.n_kv_heads} does not divide model.n_heads={self.n_heads}; "
                f"use {_divisors(self.n_heads)}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"model.dropout={self.dropout} is no probability below 1; use 0 to 0.9"
            )
        for key in BASE_SIZES["completep"]:
            self._check_base(key)
        for key in ("norm_eps", "rope_theta", "init_std", "logit_scale"):
            if not getattr(self, key) > 0:
                raise ValueError(f"model.{key}={getattr(self, key)} must be positive")
        for key in NOT_NEGATIVE:
            if getattr(self, key) < 0:
                raise ValueError(
                    f"model.{key}={getattr(self, key)} must be positive, or 0 for none"
                )
        for key, (needed, value) in NEEDS.items():
            if getattr(self, key) != DEFAULTS[key] and getattr(self, needed) not in value:
                raise ValueError(
                    f"model.{key}={getattr(self, key)!r} means nothing with model.{needed}="
                    f"{getattr(self, needed)!r}; it needs {' or '.join(map(str, value))}"
                )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f"model.d_model={self.d_model} is odd, and model.positions='sinusoidal' pairs a "
                f"sine with a cosine; use {self.d_model + 1}"
            )
        self._check_rotary()
        self._check_window()
        if self.query_scale and self.parametrization != "standard":
            raise ValueError(
                f"model.query_scale={self.query_scale} contradicts "
                f"model.parametrization={self.parametrization!r}, which sets the scale; use 0"
            )

    @property
    def rotary_dim(self) -> int:
        """How many of a head's C dimensions rotate."""
        return int(self.head_dim * self.rope_fraction)

    def is_local(self, layer: int) -> bool:
        """Whether this layer sees no further back than `window`."""
        pattern = self.window_pattern
        return self.window > 0 and pattern[layer % len(pattern)] == "L"

    @property
    def period(self) -> int:
        """After how many layers the kinds of layers repeat."""
        pattern = self.window_pattern
        return len(pattern) if self.window and len(set(pattern)) > 1 else 1

    def _check_rotary(self) -> None:
        if self.positions != "rotary":
            return
        if not 0 < self.rope_fraction <= 1:
            raise ValueError(f"model.rope_fraction={self.rope_fraction} is no share; use 0.5, say")
        if self.rotary_dim % 2 or not self.rotary_dim:
            raise ValueError(
                f"model.head_dim={self.head_dim} times model.rope_fraction={self.rope_fraction} is "
                f"{self.rotary_dim}, which rotary positions cannot split in pairs; "
                "use an even number, or positions=learned"
            )
        if self.rope_scaling in ("linear", "llama3") and self.rope_factor < 1:
            raise ValueError(
                f"model.rope_factor={self.rope_factor} would shrink the context; use ≥ 1"
            )
        if self.rope_scaling in ("llama3", "longrope") and self.rope_original_context < 1:
            raise ValueError(
                f"model.rope_original_context={self.rope_original_context}, but "
                f"model.rope_scaling={self.rope_scaling!r} starts from one; give the tokens of the "
                "context that the model was first trained with"
            )
        if self.rope_scaling == "llama3" and self.rope_high_frequency <= self.rope_low_frequency:
            raise ValueError(
                f"model.rope_high_frequency={self.rope_high_frequency} is not above "
                f"model.rope_low_frequency={self.rope_low_frequency}; use 4 and 1, say"
            )
        if self.rope_scaling == "longrope":
            for key in ("rope_short_factors", "rope_long_factors"):
                if len(getattr(self, key)) != self.rotary_dim // 2:
                    raise ValueError(
                        f"model.{key} has {len(getattr(self, key))} numbers; "
                        f"it needs one for each of the {self.rotary_dim // 2} pairs of dimensions"
                    )

    def _check_window(self) -> None:
        if not self.window_pattern or set(self.window_pattern) - {"L", "G"}:
            raise ValueError(
                f"model.window_pattern={self.window_pattern!r} must be made of L (local) and "
                "G (global) alone; use 'L', 'LG' or 'LLLLLG', say"
            )
        if self.rope_theta_local and not self.window:
            raise ValueError(
                f"model.rope_theta_local={self.rope_theta_local} is for local layers, and "
                "model.window=0 makes none; set a window, or use 0"
            )

    def _check_base(self, key: str) -> None:
        name, value = f"model.parametrization={self.parametrization!r}", getattr(self, key)
        if key not in BASE_SIZES[self.parametrization] and value:
            raise ValueError(f"model.{key}={value} means nothing to {name}; use 0")
        if key in BASE_SIZES[self.parametrization] and value < 1:
            raise ValueError(
                f"model.{key}={value}, but {name} scales from a base shape; give the "
                f"{key.removeprefix('base_')} of the model whose hyperparameters were tuned"
            )


# Each of these, where it is not its default, needs another key to have one of some values.
NEEDS = {
    "rope_theta": ("positions", ("rotary",)),
    "rope_layout": ("positions", ("rotary",)),
    "rope_fraction": ("positions", ("rotary",)),
    "rope_scaling": ("positions", ("rotary",)),
    "rope_theta_local": ("positions", ("rotary",)),
    "rope_factor": ("rope_scaling", ("linear", "llama3")),
    "rope_original_context": ("rope_scaling", ("llama3", "longrope")),
    "rope_low_frequency": ("rope_scaling", ("llama3",)),
    "rope_high_frequency": ("rope_scaling", ("llama3",)),
    "rope_short_factors": ("rope_scaling", ("longrope",)),
    "rope_long_factors": ("rope_scaling", ("longrope",)),
    "norm_offset": ("norm", ("rmsnorm",)),
    "out_bias": ("attention_bias", (True,)),
}
NOT_NEGATIVE = (
    *("rope_theta_local", "rope_original_context", "rope_low_frequency", "window"),
    *("query_scale", "attention_softcap", "logit_softcap", "embedding_std"),
)
DEFAULTS = {field.name: field.default for field in fields(ModelConfig)}


def derive(keys: dict) -> ModelConfig:
    """A ModelConfig from the `model` section of a config, its zeros replaced by what they mean.

    Base sizes that the parametrisation ignores become 0, so that they make no two models of one.
    """
    keys = dict(keys)
    if not keys.get("window"):
        keys["window_pattern"] = "L"  # means nothing, so that it makes no two models of one
    used = BASE_SIZES.get(keys.get("parametrization"), ())
    keys |= {key: 0 for key in BASE_SIZES["completep"] if key not in used}
    d_model, n_heads = keys["d_model"], keys["n_heads"]
    _at_least_one("d_model", d_model)
    _at_least_one("n_heads", n_heads)
    if not keys["head_dim"]:
        if d_model % n_heads:
            raise ValueError(
                f"model.n_heads={n_heads} does not divide model.d_model={d_model}; "
                f"use {_divisors(d_model)}, or set model.head_dim"
            )
        keys["head_dim"] = d_model // n_heads
    keys["n_kv_heads"] = keys["n_kv_heads"] or n_heads
    if not keys["d_ff"]:
        keys["d_ff"] = -(-8 * d_model // 3 // 8) * 8 if keys["gated"] else 4 * d_model
    return ModelConfig(**keys)


def _at_least_one(key: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"model.{key}={value} must be a whole number of at least 1")


def _divisors(n: int) -> str:
    return ", ".join(str(k) for k in range(1, min(n, 64) + 1) if n % k == 0)
