"""Config: a frozen, validated, hashable description of a Transformer encoder–decoder.

The defaults are a small model as in Vaswani et al. 2017. With norm="rmsnorm", norm_position="pre",
positions="relative", mlp_bias=False and query_scale=1.0 it is T5's.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.keys import check, check_value, divisors, key
from model.transformer.config import CHOICES, ModelConfig

RELATIVE = {"positions": ("relative",)}


@dataclass(frozen=True)
class Config:
    """The `model` section of an encoder–decoder; sizes whose default is below their bound are
    derived. Raises ValueError that names the key, its value and the valid values."""

    vocab_size: int = key(0, least=1)  # tokens of both sides; 0: the tokenizer's
    source_length: int = key(128, least=1)  # tokens of a row that the encoder reads
    context_length: int = key(128, least=1)  # tokens of a row that the decoder reads
    n_layers: int = key(4, least=1)  # of the encoder
    decoder_layers: int = key(0, least=1)  # 0: n_layers
    d_model: int = key(128, least=1)
    n_heads: int = key(4, least=1)
    head_dim: int = key(0, least=1)  # 0: d_model / n_heads
    d_ff: int = key(0, least=1)  # width of the MLP; 0: 4 d_model
    norm: str = key("layernorm", choices=("layernorm", "rmsnorm"))
    norm_eps: float = key(1e-5, above=0)
    norm_position: str = key("post", choices=("post", "pre"))  # see stack.Block
    # sinusoidal: added to the embeddings | relative: T5's bias on the scores of self-attention
    positions: str = key("sinusoidal", choices=("sinusoidal", "relative"))
    relative_buckets: int = key(32, least=4, needs=RELATIVE)  # of distances
    relative_distance: int = key(128, least=3, needs=RELATIVE)  # from here on all share one
    query_scale: float = key(0.0, least=0)  # what q·k is multiplied by; 0: 1 / sqrt(head_dim)
    logit_scale: float = key(1.0, above=0)  # what the logits are multiplied by; T5: 1/sqrt(d_model)
    activation: str = key("relu", choices=CHOICES["activation"])
    gated: bool = key(False)  # True: act(x W_gate) * (x W_up)
    attention_bias: bool = key(False)  # of the projections of queries, keys, values and outputs
    mlp_bias: bool = key(True)
    embedding_scale: bool = key(True)  # embeddings are multiplied by sqrt(d_model)
    tie_embeddings: bool = key(True)  # the head is the transposed embedding, which both sides share
    dropout: float = key(0.0, least=0, below=1)  # on embeddings and on each residual branch
    init: str = key("fan_in", choices=("fan_in", "normal"))  # N(0, 1/fan_in) | N(0, init_std)
    init_std: float = key(0.02, above=0)  # of kernels
    embedding_std: float = key(0.0, least=0)  # of initial embeddings; 0: 1 / sqrt(d_model)
    dtype: str = key("float32", choices=("float32", "bfloat16"))  # of the computation
    scan_layers: bool = key(False)  # one compiled block in a loop
    remat: str = key("none", choices=CHOICES["remat"])  # what a block keeps: model/transformer

    def __post_init__(self):
        check(self)
        if self.positions == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f"model.d_model={self.d_model} is odd, but model.positions='sinusoidal' needs "
                f"pairs of a sine and a cosine; use {self.d_model + 1}"
            )
        if self.relative_buckets % 4:
            raise ValueError(
                f"model.relative_buckets={self.relative_buckets} is no multiple of 4: half of them "
                f"are for each direction, and half of those for single distances; use "
                f"{self.relative_buckets // 4 * 4 + 4}"
            )
        if self.relative_distance <= self.relative_buckets // 2:
            raise ValueError(
                f"model.relative_distance={self.relative_distance} is not above half of "
                f"model.relative_buckets={self.relative_buckets}, which hold one distance each; "
                f"use {self.relative_buckets // 2 + 1} or more"
            )


def derive(keys: Mapping[str, Any]) -> Config:
    """A Config from a `model` section, with its zeros derived."""
    keys = dict(keys)
    for name in ("d_model", "n_heads"):
        check_value(Config, name, keys[name])
    d_model, n_heads = keys["d_model"], keys["n_heads"]
    if not keys["head_dim"]:
        if d_model % n_heads:
            raise ValueError(
                f"model.n_heads={n_heads} does not divide model.d_model={d_model}; "
                f"use {divisors(d_model)}, or set model.head_dim"
            )
        keys["head_dim"] = d_model // n_heads
    keys["d_ff"] = keys["d_ff"] or 4 * d_model
    keys["decoder_layers"] = keys["decoder_layers"] or keys["n_layers"]
    return Config(**keys)


SHARED = (
    *("vocab_size", "context_length", "d_model", "n_heads", "head_dim", "d_ff", "norm"),
    *("norm_eps", "norm_position", "query_scale", "logit_scale", "activation", "gated"),
    *("attention_bias", "mlp_bias", "embedding_scale", "tie_embeddings", "dropout"),
    *("init", "init_std", "dtype", "scan_layers", "remat"),
)


@functools.lru_cache(maxsize=64)
def layers(cfg: Config, count: int) -> ModelConfig:
    """What the layers of model/transformer read of `cfg`, for a stack of `count` layers."""
    keys = {name: getattr(cfg, name) for name in SHARED}
    keys |= {"n_layers": count, "n_kv_heads": cfg.n_heads, "positions": "none"}
    return ModelConfig(**keys)
