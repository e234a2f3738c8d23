"""word2vec as a model family: continuous bag of words (CBOW) and skip-gram.

Mikolov et al. 2013a (arXiv:1301.3781) and 2013b (arXiv:1310.4546). Each word has an input vector
and an output vector. CBOW predicts a word from the mean of the input vectors around it. Skip-gram
predicts each word around a word from the input vector of that word. The score of a prediction is
the product of the input side and the output vector of the predicted word.

A batch holds runs of consecutive words [B, T]. Around word t are the words from t - r to t + r
of its document, where r is its `reach`. A run is cut in N blocks of Q = BLOCK words. The words
of a block are multiplied with all M = Q + 2 window words near it, and a mask [Q, M] keeps the
pairs: some products too many, but in matrices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.keys import check, key
from model.partitioning import constrain

INPUTS = ("tokens", "segments", "reach")
BLOCK = 16
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

    def __post_init__(self):
        check(self)
        if self.context_length % BLOCK:
            more = -(-self.context_length // BLOCK) * BLOCK
            raise ValueError(
                f"model.context_length={self.context_length} must be a multiple of {BLOCK} in "
                f"model.family=word2vec; use {more}"
            )


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    return Config(**keys)


def parameters(cfg: Config) -> dict[str, int]:
    """Input and output vectors. Both are the model itself, so both count as non-embedding N."""
    return dict.fromkeys(("input_vectors", "output_vectors"), cfg.vocab_size * cfg.d_model)


def flops(cfg: Config) -> dict[str, float]:
    """Training FLOPs per word that is left after subsampling, by convention.

    "6nd" and "kaplan" are 6 N, whatever is looked up. A product of D numbers takes 2 D, and its two
    gradients 4 D. With P words around a word (window + 1 on average if the window is dynamic, else
    2 window) and k noise words, "chinchilla" counts the products of Mikolov et al. 2013b, eq. 4,
    and "palm" those that are computed, where the M words near a block stand for the P of a word:

        skip-gram  6 D (P + k)            CBOW  4 D P + 6 D (1 + k)

    CBOW adds P vectors to a mean, and the mean's gradient to each of them. A full softmax takes the
    V scores of the vocabulary in place of the noise words (eq. 2), 6 D V.
    """
    needed = cfg.window + 1.0 if cfg.dynamic_window else 2.0 * cfg.window
    other = cfg.negatives or cfg.vocab_size
    products = {
        "skipgram": lambda around: 6 * cfg.d_model * (around + other),
        "cbow": lambda around: 4 * cfg.d_model * around + 6 * cfg.d_model * (1 + other),
    }[cfg.method]
    total = 6.0 * sum(parameters(cfg).values())
    computed = products(float(BLOCK + 2 * cfg.window))
    return {"6nd": total, "kaplan": total, "chinchilla": products(needed), "palm": computed}


def init(cfg: Config, key: jax.Array) -> dict:
    """Input vectors uniform in ±1 / 2D and output vectors 0, as in the authors' word2vec.c."""
    shape, side = (cfg.vocab_size, cfg.d_model), 0.5 / cfg.d_model
    inputs = jax.random.uniform(key, shape, jnp.float32, -side, side)
    return {"input": {"embedding": inputs}, "output": {"embedding": jnp.zeros(shape, jnp.float32)}}


def near(x_BT: jax.Array, window: int) -> jax.Array:
    """The M words near each of N blocks of Q words [B, N, M]; 0 beyond the ends of a row."""
    first_N = np.arange(x_BT.shape[1] // BLOCK) * BLOCK
    index_NM = first_N[:, None] + np.arange(BLOCK + 2 * window)
    return jnp.pad(x_BT, ((0, 0), (window, window)))[:, index_NM]


def blocks(x_BT: jax.Array) -> jax.Array:
    """A row in blocks [B, N, Q, …]."""
    return x_BT.reshape(x_BT.shape[0], -1, BLOCK, *x_BT.shape[2:])


def around(cfg: Config, batch: Mapping[str, jax.Array]) -> jax.Array:
    """1.0 where a word near a block is around a word of the block [B, N, Q, M]: within its reach,
    in its document, and not the word itself."""
    distance_QM = np.abs(
        np.arange(BLOCK)[:, None] - np.arange(-cfg.window, BLOCK + cfg.window)[None]
    )
    segment_BNQ, reach_BNQ = blocks(batch["segments"]), blocks(batch["reach"])
    same_BNQM = near(batch["segments"], cfg.window)[:, :, None] == segment_BNQ[..., None]
    inside_BNQM = (distance_QM <= reach_BNQ[..., None]) & (distance_QM > 0)
    return (same_BNQM & inside_BNQM & (segment_BNQ > 0)[..., None]).astype(jnp.float32)


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The vector that predicts [B, T, D]: the word's own, or the mean of those around it."""
    table, tokens_BT = params["input"]["embedding"], batch["tokens"]
    if cfg.method == "skipgram":
        x_BTD = table[tokens_BT]
    else:
        w_BNQM, x_BNMD = around(cfg, batch), table[near(tokens_BT, cfg.window)]
        share_BNQM = w_BNQM / jnp.maximum(w_BNQM.sum(-1, keepdims=True), 1)
        x_BNQD = jnp.einsum("bnqm,bnmd->bnqd", share_BNQM, x_BNMD)
        x_BTD = x_BNQD.reshape(*tokens_BT.shape, cfg.d_model)
    return constrain(x_BTD, "batch", "seq", "activation")


def head(cfg: Config, params: dict) -> dict:
    """The output vectors."""
    return params["output"]


def logits(cfg: Config, head: dict, x_BTD: jax.Array) -> jax.Array:
    """The score of every word of the vocabulary [B, T, V]."""
    return x_BTD @ head["embedding"].T


def scores(
    cfg: Config, head: dict, x_BTD: jax.Array, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """(scores of predicted words, their weights 0 or 1) [B, T, P].

    Skip-gram predicts the words around a word, among the P = M near its block. CBOW predicts the
    word itself if there is a word around it: P = 1.
    """
    tokens_BT, w_BNQM = batch["tokens"], around(cfg, batch)
    w_BTM = w_BNQM.reshape(*tokens_BT.shape, -1)
    if cfg.method == "cbow":
        score_BT = (x_BTD * head["embedding"][tokens_BT]).sum(-1)
        return score_BT[..., None], w_BTM.max(-1, keepdims=True)
    out_BNMD = head["embedding"][near(tokens_BT, cfg.window)]
    score_BNQM = jnp.einsum("bnqd,bnmd->bnqm", blocks(x_BTD), out_BNMD)
    return score_BNQM.reshape(w_BTM.shape), w_BTM


def noise_scores(cfg: Config, head: dict, x_BTD: jax.Array, noise_BTK: jax.Array) -> jax.Array:
    """The scores of K noise words for each vector [B, T, K]."""
    return jnp.einsum("btd,btkd->btk", x_BTD, head["embedding"][noise_BTK])


def vectors(cfg: Config, params: dict) -> jax.Array:
    """The word vectors [V, D]: the input vectors, as in word2vec.c."""
    return params["input"]["embedding"]
