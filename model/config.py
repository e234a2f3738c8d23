"""This file describes a Transformer completely: one frozen, validated, hashable dataclass."""

from dataclasses import dataclass

CHOICES = {
    "norm": ("layernorm", "rmsnorm"),
    "positions": ("learned", "rotary", "none"),
    "activation": ("gelu", "gelu_tanh", "silu", "relu"),
    "init": ("gpt2", "normal", "fan_in"),
    "dtype": ("float32", "bfloat16"),
    "parametrization": ("standard", "mup", "completep"),
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
    positions: str = "learned"
    rope_theta: float = 10_000.0
    activation: str = "gelu_tanh"
    gated: bool = False
    attention_bias: bool = True
    mlp_bias: bool = True
    tie_embeddings: bool = True
    dropout: float = 0.0
    init: str = "gpt2"
    init_std: float = 0.02
    dtype: str = "float32"
    parametrization: str = "standard"
    base_width: int = 0
    base_head_dim: int = 0
    base_depth: int = 0

    def __post_init__(self):
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise ValueError(
                    f"model.{key}={getattr(self, key)!r} is unknown; use one of {', '.join(known)}"
                )
        for key in ("vocab_size", "context_length", "n_layers", "d_model", "n_heads", "n_kv_heads"):
            _at_least_one(key, getattr(self, key))
        _at_least_one("head_dim", self.head_dim)
        _at_least_one("d_ff", self.d_ff)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"model.n_kv_heads={self.n_kv_heads} does not divide model.n_heads={self.n_heads}; "
                f"use {_divisors(self.n_heads)}"
            )
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(
                f"model.head_dim={self.head_dim} is odd, which rotary positions cannot split; "
                f"use {self.head_dim + 1}, or positions=learned"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"model.dropout={self.dropout} is no probability below 1; use 0 to 0.9"
            )
        for key in BASE_SIZES["completep"]:
            self._check_base(key)
        for key in ("norm_eps", "rope_theta", "init_std"):
            if not getattr(self, key) > 0:
                raise ValueError(f"model.{key}={getattr(self, key)} must be positive")

    def _check_base(self, key: str) -> None:
        name, value = f"model.parametrization={self.parametrization!r}", getattr(self, key)
        if key not in BASE_SIZES[self.parametrization] and value:
            raise ValueError(f"model.{key}={value} means nothing to {name}; use 0")
        if key in BASE_SIZES[self.parametrization] and value < 1:
            raise ValueError(
                f"model.{key}={value}, but {name} scales from a base shape; give the "
                f"{key.removeprefix('base_')} of the model whose hyperparameters were tuned"
            )


def derive(keys: dict) -> ModelConfig:
    """A ModelConfig from the `model` section of a config, its zeros replaced by what they mean.

    Base sizes that the parametrisation ignores become 0, so that they make no two models of one.
    """
    keys = dict(keys)
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
