"""ModelConfig: a frozen, validated, hashable dataclass that describes a Transformer completely."""

from dataclasses import dataclass

from model.keys import check, check_value, defaults, divisors, key, rules

ROTARY = {"positions": ("rotary",)}
SCALED_BY_FACTOR = {"rope_scaling": ("linear", "llama3")}
LLAMA3 = {"rope_scaling": ("llama3",)}
LONGROPE = {"rope_scaling": ("longrope",)}


@dataclass(frozen=True)
class ModelConfig:
    """The `model` section of a config, with every size explicit; `configs/base.py` documents it.

    Sizes whose default is below their bound are derived: see `derive`. Raises ValueError that names
    the key, its value and the valid values.
    """

    vocab_size: int = key(0, least=1)
    context_length: int = key(128, least=1)
    n_layers: int = key(4, least=1)
    d_model: int = key(128, least=1)
    n_heads: int = key(4, least=1)
    n_kv_heads: int = key(0, least=1)
    head_dim: int = key(0, least=1)
    d_ff: int = key(0, least=1)
    norm: str = key("layernorm", choices=("layernorm", "rmsnorm"))
    norm_eps: float = key(1e-5, above=0)
    norm_bias: bool = key(True)
    norm_offset: bool = key(False, needs={"norm": ("rmsnorm",)})
    norm_position: str = key("pre", choices=("pre", "post", "both", "parallel"))
    qk_norm: bool = key(False)
    positions: str = key("learned", choices=("learned", "sinusoidal", "rotary", "alibi", "none"))
    rope_theta: float = key(10_000.0, above=0, needs=ROTARY)
    rope_theta_local: float = key(0.0, least=0, needs=ROTARY)
    rope_layout: str = key("half", choices=("half", "interleaved"), needs=ROTARY)
    rope_fraction: float = key(1.0, above=0, most=1, needs=ROTARY)
    rope_scaling: str = key("none", choices=("none", "linear", "llama3", "longrope"), needs=ROTARY)
    rope_factor: float = key(1.0, least=1, needs=SCALED_BY_FACTOR)
    rope_original_context: int = key(0, least=0, needs={"rope_scaling": ("llama3", "longrope")})
    rope_low_frequency: float = key(1.0, least=0, needs=LLAMA3)
    rope_high_frequency: float = key(4.0, needs=LLAMA3)
    rope_short_factors: tuple[float, ...] = key((), needs=LONGROPE)
    rope_long_factors: tuple[float, ...] = key((), needs=LONGROPE)
    window: int = key(0, least=0)
    window_pattern: str = key("L", letters="LG")
    query_scale: float = key(0.0, least=0)
    attention_softcap: float = key(0.0, least=0)
    logit_softcap: float = key(0.0, least=0)
    logit_scale: float = key(1.0, above=0)
    activation: str = key("gelu_tanh", choices=("gelu", "gelu_tanh", "silu", "relu", "relu2"))
    gated: bool = key(False)
    attention_bias: bool = key(True)
    out_bias: bool = key(True, needs={"attention_bias": (True,)})
    mlp_bias: bool = key(True)
    embedding_scale: bool = key(False)
    tie_embeddings: bool = key(True)
    dropout: float = key(0.0, least=0, below=1)
    init: str = key("gpt2", choices=("gpt2", "normal", "fan_in"))
    init_std: float = key(0.02, above=0)
    embedding_std: float = key(0.0, least=0)
    dtype: str = key("float32", choices=("float32", "bfloat16"))
    attention: str = key("auto", choices=("auto", "xla", "splash", "cudnn", "ring"))
    parametrization: str = key("standard", choices=("standard", "mup", "completep"))
    base_width: int = key(0, least=0, needs={"parametrization": ("mup", "completep")})
    base_head_dim: int = key(0, least=0, needs={"parametrization": ("mup", "completep")})
    base_depth: int = key(0, least=0, needs={"parametrization": ("completep",)})
    n_classes: int = key(0, least=0)
    scan_layers: bool = key(False)
    remat: str = key(
        "none",
        choices=(
            *("none", "full", "attention", "projections"),
            *("dots", "dots_attention", "offload"),
        ),
    )

    def __post_init__(self):
        for name in ("rope_short_factors", "rope_long_factors"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has only lists
        check(self)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"model.n_kv_heads={self.n_kv_heads} does not divide model.n_heads={self.n_heads}; "
                f"use {divisors(self.n_heads)}"
            )
        for name in BASE_SIZES[self.parametrization]:
            if not getattr(self, name):
                raise ValueError(
                    f"model.{name}=0, but model.parametrization={self.parametrization!r} scales "
                    f"from a base shape; give the {name.removeprefix('base_')} of the model whose "
                    "hyperparameters were tuned"
                )
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f"model.d_model={self.d_model} is odd, but model.positions='sinusoidal' needs "
                f"pairs of a sine and a cosine; use {self.d_model + 1}"
            )
        if self.positions == "rotary":
            self._check_rotary()
        if self.rope_theta_local and not self.window:
            raise ValueError(
                f"model.rope_theta_local={self.rope_theta_local} is for local layers, but "
                "model.window=0 makes every layer global; set a window, or use 0"
            )
        if self.query_scale and self.parametrization != "standard":
            raise ValueError(
                f"model.query_scale={self.query_scale} contradicts "
                f"model.parametrization={self.parametrization!r}, which sets the scale; use 0"
            )

    @property
    def rotary_dim(self) -> int:
        """The number of rotated dimensions of a head."""
        return int(self.head_dim * self.rope_fraction)

    def is_local(self, layer: int) -> bool:
        """Whether a query in this layer sees the last `window` keys only."""
        pattern = self.window_pattern
        return self.window > 0 and pattern[layer % len(pattern)] == "L"

    @property
    def period(self) -> int:
        """The number of layers after which the window pattern repeats."""
        pattern = self.window_pattern
        return len(pattern) if self.window and len(set(pattern)) > 1 else 1

    def _check_rotary(self) -> None:
        if self.rotary_dim % 2 or not self.rotary_dim:
            raise ValueError(
                f"model.head_dim={self.head_dim} times model.rope_fraction={self.rope_fraction} is "
                f"{self.rotary_dim}, which rotary positions cannot split into pairs; "
                "use an even number, or positions=learned"
            )
        if self.rope_scaling in ("llama3", "longrope") and not self.rope_original_context:
            raise ValueError(
                f"model.rope_original_context=0, but model.rope_scaling={self.rope_scaling!r} "
                "extends it; give the number of tokens of the context before the extension"
            )
        if self.rope_high_frequency <= self.rope_low_frequency:
            raise ValueError(
                f"model.rope_high_frequency={self.rope_high_frequency} is not above "
                f"model.rope_low_frequency={self.rope_low_frequency}; use, for example, 4 and 1"
            )
        if self.rope_scaling == "longrope":
            for name in ("rope_short_factors", "rope_long_factors"):
                if len(getattr(self, name)) != self.rotary_dim // 2:
                    raise ValueError(
                        f"model.{name} has {len(getattr(self, name))} numbers; "
                        f"it needs one for each of the {self.rotary_dim // 2} pairs of dimensions"
                    )


DEFAULTS = defaults(ModelConfig)
CHOICES = rules(ModelConfig, "choices")
# The base sizes that each parametrization uses.
BASE_SIZES = {
    parametrization: tuple(
        name
        for name, needs in rules(ModelConfig, "needs").items()
        if parametrization in needs.get("parametrization", ())
    )
    for parametrization in CHOICES["parametrization"]
}


def derive(keys: dict) -> ModelConfig:
    """A ModelConfig from the `model` section of a config, with its zeros derived.

    Keys that have no effect are set to their defaults, so that equal models have equal configs:
    base sizes that the parametrization ignores, and the window pattern if there is no window.
    """
    keys = dict(keys)
    if not keys.get("window"):
        keys["window_pattern"] = DEFAULTS["window_pattern"]
    used = BASE_SIZES.get(keys.get("parametrization"), ())
    keys |= {name: 0 for name in BASE_SIZES["completep"] if name not in used}
    d_model, n_heads = keys["d_model"], keys["n_heads"]
    check_value(ModelConfig, "d_model", d_model)
    check_value(ModelConfig, "n_heads", n_heads)
    if not keys["head_dim"]:
        if d_model % n_heads:
            raise ValueError(
                f"model.n_heads={n_heads} does not divide model.d_model={d_model}; "
                f"use {divisors(d_model)}, or set model.head_dim"
            )
        keys["head_dim"] = d_model // n_heads
    keys["n_kv_heads"] = keys["n_kv_heads"] or n_heads
    keys["d_ff"] = keys["d_ff"] or mlp_width(d_model, keys["gated"])
    return ModelConfig(**keys)


def mlp_width(width: int, gated: bool) -> int:
    """The width of an MLP where none is given: 4 D, or 8/3 D rounded up to 8 when gated."""
    return -(-8 * width // 3 // 8) * 8 if gated else 4 * width
