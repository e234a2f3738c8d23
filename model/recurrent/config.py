"""The keys of a recurrent language model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.keys import check, key


@dataclass(frozen=True)
class Config:
    """Zeros are derived by `derive`, which every config that a program runs has been through."""

    vocab_size: int = key(0, least=1)  # tokens; 0: the tokenizer's
    context_length: int = key(128, least=1)  # tokens of one training sequence
    cell: str = key("lstm", choices=("elman", "jordan", "gru", "lstm"))
    n_layers: int = key(2, least=1)
    d_model: int = key(128, least=1)  # width of the token embedding
    d_hidden: int = key(0, least=1)  # width of every layer's state; 0: d_model
    dropout: float = key(0.0, least=0, below=1)  # on what enters and leaves layers, not on states
    tie_embeddings: bool = key(True)  # the head is the transposed token embedding
    layer_norm: bool = key(False)  # of both products of a cell, Ba et al. 2016
    # orthogonal: recurrent kernels orthogonal, input kernels N(0, 1 / fan_in), forget gates open
    # (bias 1) | uniform: everything U(-1, 1) / sqrt(d_hidden), as in PyTorch
    init: str = key("orthogonal", choices=("orthogonal", "uniform"))
    # Each row goes on in the text, and from the state, where it ended in the step before
    carry_state: bool = key(False)
    dtype: str = key("float32", choices=("float32", "bfloat16"))  # of products; states are float32
    unroll: int = key(1, least=1)  # time steps of one trip of the compiled loop; changes no result

    def __post_init__(self):
        check(self)
        if self.tie_embeddings and self.d_hidden != self.d_model:
            raise ValueError(
                f"model.tie_embeddings=True needs model.d_hidden={self.d_hidden} to equal "
                f"model.d_model={self.d_model}; use d_hidden=0, or tie_embeddings=False"
            )


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**{**keys, "d_hidden": keys["d_hidden"] or keys["d_model"]})
