"""Config: a frozen, validated, hashable description of a BERT encoder."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.keys import check, check_value, divisors, key
from model.transformer.config import CHOICES, ModelConfig

SHARED = (
    *("vocab_size", "context_length", "n_layers", "d_model", "n_heads", "d_ff", "norm_eps"),
    *("activation", "dropout", "init_std", "dtype", "scan_layers", "remat"),
)


@dataclass(frozen=True)
class Config:
    """The `model` section of an encoder: the block of Devlin et al. 2019 at a small size.

    Raises ValueError that names the key, its value and the valid values."""

    vocab_size: int = key(0, least=1)  # tokens; 0: those of the data, [CLS] and [MASK] included
    context_length: int = key(128, least=3)  # tokens of a row, and of the position table
    n_layers: int = key(4, least=1)
    d_model: int = key(128, least=1)
    n_heads: int = key(4, least=1)
    d_ff: int = key(0, least=1)  # width of the MLP; 0: 4 d_model
    token_types: int = key(2, least=1)  # rows of the segment embedding: sentence A or B
    norm_eps: float = key(1e-12, above=0)
    activation: str = key("gelu", choices=CHOICES["activation"])
    dropout: float = key(0.0, least=0, below=1)  # on embeddings, branches and the pooled state
    # True: `pooled` is tanh(W x + b) of the first token's state x; False: x itself
    pooler: bool = key(False)
    masked_head: bool = key(True)  # False: no masked-LM head; n_classes above 0 makes it False
    masked: float = key(0.15, above=0, below=1)  # share of the tokens that the masked-LM head reads
    # Classes of a classification head; 0: as many as the labelled data have, otherwise no head
    n_classes: int = key(0, least=0)
    init_std: float = key(0.02, above=0)
    dtype: str = key("float32", choices=("float32", "bfloat16"))  # of the computation
    scan_layers: bool = key(False)  # one compiled block in a loop
    remat: str = key("none", choices=CHOICES["remat"])  # what a block keeps: model/transformer

    def __post_init__(self):
        check(self)
        if self.d_model % self.n_heads:
            raise ValueError(
                f"model.n_heads={self.n_heads} does not divide model.d_model={self.d_model}; "
                f"use {divisors(self.d_model)}"
            )


def derive(keys: Mapping[str, Any]) -> Config:
    """A Config from a `model` section, with its zeros derived."""
    keys = dict(keys)
    check_value(Config, "d_model", keys["d_model"])
    keys["d_ff"] = keys["d_ff"] or 4 * keys["d_model"]
    keys["masked_head"] = bool(keys["masked_head"] and not keys["n_classes"])
    return Config(**keys)


@functools.lru_cache(maxsize=64)
def layers(cfg: Config) -> ModelConfig:
    """What the layers of model/transformer read of `cfg`."""
    keys = {name: getattr(cfg, name) for name in SHARED}
    return ModelConfig(
        **keys,
        n_kv_heads=cfg.n_heads,
        head_dim=cfg.d_model // cfg.n_heads,
        norm_position="post",
        positions="none",
        init="normal",
        attention="xla",
    )
