"""Induction heads: heads that look for what followed the present token the last time it occurred.

Olsson et al. 2022, "In-context learning and induction heads", give a model random tokens twice. In
the second half an induction head attends from each token to the token after its first occurrence,
which is the next one, and so the loss falls.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from model.transformer import family as decoder
from model.transformer.config import ModelConfig


def repeated(
    rng: np.random.Generator, candidates: np.ndarray, start: tuple[int, ...], n: int, rows: int
) -> np.ndarray:
    """Tokens [rows, start + 2n]: `start`, then n different candidates, then the same again."""
    halves = [rng.choice(candidates, n, replace=False) for _ in range(rows)]
    return np.array([[*start, *half, *half] for half in halves], np.int32)


def prefix_matching(weights_BHTS: jax.Array, start: int, n: int) -> jax.Array:
    """The prefix matching score of each head [B, H], of rows of `repeated` after `start` tokens:
    the mean weight that a token of the second half gives the token after its first occurrence. 1:
    all of its attention; a head that attends to all keys alike has about 1 / (1.5 n)."""
    query_N = start + n + np.arange(n)
    return weights_BHTS[:, :, query_N, query_N - n + 1].mean(-1)


def previous_token(weights_BHTS: jax.Array) -> jax.Array:
    """The mean weight that a token gives the one before it, of each head [B, H]. Such heads come
    before induction heads, which read what they write."""
    query_T = np.arange(1, weights_BHTS.shape[2])
    return weights_BHTS[:, :, query_T, query_T - 1].mean(-1)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def measured(
    cfg: ModelConfig, start: int, n: int, params: dict, tokens_BT: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of rows of `repeated`: `prefix_matching` [L, B, H], `previous_token` [L, B, H], and the nats
    of the second to the last token of each half [B, 2, n - 1]. The first of the second half is left
    out, with its equal: that the half begins again, nothing foretells."""
    x_BTD, seen = decoder.activations(cfg, params, {"tokens": tokens_BT})
    weights_LBHTS = seen["blocks"]["attention"]["weights"]
    logp_BTV = jax.nn.log_softmax(decoder.logits(cfg, decoder.head(cfg, params), x_BTD[:, :-1]))
    nats_BT = -jnp.take_along_axis(logp_BTV, tokens_BT[:, 1:, None], axis=2)[..., 0]
    halves_B2N = nats_BT[:, start - 1 :].reshape(len(tokens_BT), 2, n)
    matching_LBH = jax.vmap(lambda w_BHTS: prefix_matching(w_BHTS, start, n))(weights_LBHTS)
    return matching_LBH, jax.vmap(previous_token)(weights_LBHTS), halves_B2N[:, :, 1:]
