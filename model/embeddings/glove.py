"""GloVe as a model family: word vectors from the logarithms of co-occurrence counts.

Pennington et al. 2014. Each word has a word vector w with a bias b and a context vector w' with a
bias b', and the model of a co-occurrence count is

    log X_ij ≈ w_i · w'_j + b_i + b'_j    (eq. 7)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model.keys import check, key

INPUTS = ("row", "column")
PARAMETER_AXES = (
    (r"^(word|context)/embedding$", ("vocab", "embed")),
    (r"^(word|context)/bias$", ("vocab",)),
)
MATRICES = ((r"(embedding|bias)$", None),)


@dataclass(frozen=True)
class Config:
    """The keys of the family. Raises ValueError that names the key, its value and valid values."""

    vocab_size: int = key(0, least=1)  # words; 0: the tokenizer's
    d_model: int = key(128, least=1)
    __post_init__ = check


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**keys)


def parameters(cfg: Config) -> dict[str, int]:
    """Vectors and biases. They are the model itself, so all count as non-embedding N."""
    vectors = cfg.vocab_size * cfg.d_model
    return {"word_vectors": vectors, "context_vectors": vectors, "biases": 2 * cfg.vocab_size}


def flops(cfg: Config) -> dict[str, float]:
    """Training FLOPs per entry of the co-occurrence matrix, by convention.

    "6nd" and "kaplan" are 6 N, whatever is looked up. The others count what is computed for eq. 7:
    a product of D numbers, 2 D, its two gradients, 4 D, and two biases with their gradients, 4.
    """
    used, total = 6.0 * cfg.d_model + 4.0, 6.0 * sum(parameters(cfg).values())
    return {"6nd": total, "kaplan": total, "chinchilla": used, "palm": used}


def init(cfg: Config, key: jax.Array) -> dict:
    """All uniform in ±1 / 2D, as in the authors' glove.c."""
    shape, side = (cfg.vocab_size, cfg.d_model), 0.5 / cfg.d_model
    keys = iter(jax.random.split(key, 4))
    draw = lambda shape: jax.random.uniform(next(keys), shape, jnp.float32, -side, side)  # noqa: E731
    one = lambda: {"embedding": draw(shape), "bias": draw(shape[:1])}  # noqa: E731
    return {"word": one(), "context": one()}


def log_counts(cfg: Config, params: dict, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The model of log X for the words `row` and `column` of each entry [B, T]: eq. 7."""
    row_BT, column_BT = batch["row"], batch["column"]
    word, context = params["word"], params["context"]
    w_BTD, c_BTD = word["embedding"][row_BT], context["embedding"][column_BT]
    return (w_BTD * c_BTD).sum(-1) + word["bias"][row_BT] + context["bias"][column_BT]


def vectors(cfg: Config, params: dict) -> jax.Array:
    """The word vectors [V, D]: w + w', as in section 4.2 of the paper."""
    return params["word"]["embedding"] + params["context"]["embedding"]
