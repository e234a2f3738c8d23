"""word2vec as a model family: continuous bag of words (CBOW) and skip-gram.

Mikolov et al. 2013a (arXiv:1301.3781) and 2013b (arXiv:1310.4546). Each word has an input vector
and an output vector. CBOW predicts a word from the mean of the input vectors around it. Skip-gram
predicts each word around a word from the input vector of that word. The score of a prediction is
the product of the input side and the output vector of the predicted word.

A batch holds runs of consecutive words [B, T]. The words around word t are those at t - r, …, t + r
in the same document, where r is its `reach`. All words of a run are looked up once, and the words
around them are the same arrays, shifted. P places around a word are at distances 1 to `window` on
both sides: P = 2 window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model.keys import check, key
from model.partitioning import constrain

INPUTS = ("tokens", "segments", "reach")
PARAMETER_AXES = ((r"^(input|output)/embedding$", ("vocab", "embed")),)
MATRICES = ((r"embedding$", None),)


@dataclass(frozen=True)
class Config:
    """The keys of the family. Raises ValueError that names the key, its value and valid values."""

    vocab_size: int = key(0, least=1)  # words; 0: the tokenizer's
    context_length: int = key(256, least=2)  # words of one row, after subsampling
    d_model: int = key(128, least=1)
    method: str = key("skipgram", choices=("skipgram", "cbow"))
    window: int = key(5, least=1)  # words on each side of a word, at most
    dynamic_window: bool = key(True)  # reach drawn from 1, …, window for each word; False: window
    negatives: int = key(5, least=0)  # noise words for each word; 0: for the full softmax
    __post_init__ = check


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**keys)


def parameters(cfg: Config) -> dict[str, int]:
    """Input and output vectors. Both are the model itself, so both count as non-embedding N."""
    return dict.fromkeys(("input_vectors", "output_vectors"), cfg.vocab_size * cfg.d_model)


def flops(cfg: Config) -> dict[str, float]:
    """Training FLOPs per word that is left after subsampling, by convention.

    "6nd" and "kaplan" are 6 N, whatever is looked up. The others count what is computed: a product
    of D numbers takes 2 D, and its two gradients 4 D. With P words around a word (window + 1 on
    average if the window is dynamic, else 2 window), k noise words, or V if the softmax is full:

        skip-gram  6 D (P + k)            CBOW  2 · 2 D P + 6 D (1 + k)

    P + k scores of one vector; CBOW adds P vectors to form a mean, and the gradient to each of them
    (Mikolov et al. 2013a, eq. 4 and 5, for the same products with a hierarchical softmax). A full
    softmax finds the scores of the predicted words among its V, so k = V and no further scores.
    """
    around = cfg.window + 1 if cfg.dynamic_window else 2 * cfg.window
    skipgram = cfg.method == "skipgram"
    predicted = around if skipgram else 1
    scores = predicted + cfg.negatives if cfg.negatives else cfg.vocab_size
    used = 6.0 * cfg.d_model * scores + (0.0 if skipgram else 4.0 * cfg.d_model * around)
    total = 6.0 * sum(parameters(cfg).values())
    return {"6nd": total, "kaplan": total, "chinchilla": used, "palm": used}


def init(cfg: Config, key: jax.Array) -> dict:
    """Input vectors uniform in ±1 / 2D and output vectors 0, as in the authors' word2vec.c."""
    shape, side = (cfg.vocab_size, cfg.d_model), 0.5 / cfg.d_model
    inputs = jax.random.uniform(key, shape, jnp.float32, -side, side)
    return {"input": {"embedding": inputs}, "output": {"embedding": jnp.zeros(shape, jnp.float32)}}


def offsets(cfg: Config) -> tuple[int, ...]:
    """The P places around a word: -window, …, -1, 1, …, window."""
    return tuple(j for j in range(-cfg.window, cfg.window + 1) if j)


def shifted(x_BT: jax.Array, offset: int) -> jax.Array:
    """Element t + offset of each row at t; zeros beyond the ends. x [B, T, …]."""
    length, sides = x_BT.shape[1], (max(-offset, 0), max(offset, 0))
    padded = jnp.pad(x_BT, ((0, 0), sides, *((0, 0),) * (x_BT.ndim - 2)))
    return jax.lax.slice_in_dim(padded, sides[1], sides[1] + length, axis=1)


def around(cfg: Config, batch: Mapping[str, jax.Array]) -> jax.Array:
    """1.0 where a place around a word holds a word within its reach, in its document [B, T, P]."""
    segments_BT, reach_BT = batch["segments"], batch["reach"]
    inside = [
        (shifted(segments_BT, j) == segments_BT) & (segments_BT > 0) & (reach_BT >= abs(j))
        for j in offsets(cfg)
    ]
    return jnp.stack(inside, axis=-1).astype(jnp.float32)


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The vector that predicts [B, T, D]: the word's own, or the mean of those around it."""
    x_BTD = params["input"]["embedding"][batch["tokens"]]
    if cfg.method == "cbow":
        w_BTP = around(cfg, batch)
        sum_BTD = sum(w_BTP[..., p, None] * shifted(x_BTD, j) for p, j in enumerate(offsets(cfg)))
        x_BTD = sum_BTD / jnp.maximum(w_BTP.sum(-1, keepdims=True), 1)
    return constrain(x_BTD, "batch", "seq", "activation")


def head(cfg: Config, params: dict) -> dict:
    """The output vectors."""
    return params["output"]


def logits(cfg: Config, head: dict, x_BTD: jax.Array) -> jax.Array:
    """The score of every word of the vocabulary [B, T, V]."""
    return x_BTD @ head["embedding"].T


def scores(
    cfg: Config, head: dict, x_BTD: jax.Array, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(scores of the predicted words, the predicted words, their weights 0 or 1), each [B, T, P].

    Skip-gram predicts the P words around a word; CBOW the word itself, if there is one around it:
    P is 1.
    """
    tokens_BT, w_BTP = batch["tokens"], around(cfg, batch)
    out_BTD = head["embedding"][tokens_BT]
    if cfg.method == "cbow":
        score_BT = (x_BTD * out_BTD).sum(-1)
        return score_BT[..., None], tokens_BT[..., None], w_BTP.max(-1, keepdims=True)
    score = [(x_BTD * shifted(out_BTD, j)).sum(-1) for j in offsets(cfg)]
    predicted = [shifted(tokens_BT, j) for j in offsets(cfg)]
    return jnp.stack(score, -1), jnp.stack(predicted, -1), w_BTP


def noise_scores(cfg: Config, head: dict, x_BTD: jax.Array, noise_BTK: jax.Array) -> jax.Array:
    """The scores of K noise words for each vector [B, T, K]."""
    return jnp.einsum("btd,btkd->btk", x_BTD, head["embedding"][noise_BTK])


def vectors(cfg: Config, params: dict) -> jax.Array:
    """The word vectors [V, D]: the input vectors, as in word2vec.c."""
    return params["input"]["embedding"]
