"""What a model says of each token of a text, and what it would say after each layer."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from model import families


class Reading(NamedTuple):
    """Of each place of a text; leading axes may be added."""

    nats_T: jax.Array  # -log p of the target
    entropy_T: jax.Array  # of the distribution, nats
    rank_T: jax.Array  # 1: no token is likelier than the target
    top_TK: jax.Array  # the likeliest tokens, best first
    logp_TK: jax.Array  # and their log-probabilities


def read(logits_TV: jax.Array, targets_T: jax.Array, k: int) -> Reading:
    """The reading of the distributions with these logits, which need not be normalised."""
    logp_TV = jax.nn.log_softmax(logits_TV.astype(jnp.float32))
    logp_T1 = jnp.take_along_axis(logp_TV, targets_T[:, None], axis=1)
    # p log p is 0 where p is 0, as in n-gram models without smoothing.
    plogp_TV = jnp.where(jnp.isfinite(logp_TV), jnp.exp(logp_TV) * logp_TV, 0)
    best_TK, top_TK = jax.lax.top_k(logp_TV, k)
    rank_T = 1 + (logp_TV > logp_T1).sum(-1)
    return Reading(-logp_T1[:, 0], -plogp_TV.sum(-1), rank_T, top_TK, best_TK)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def of_layers(
    family: str, cfg: object, k: int, params: dict, tokens_T: jax.Array, targets_T: jax.Array
) -> Reading:
    """The logit lens (nostalgebraist 2020): the reading after each layer [N, T], as if the layers
    above it were left out and the head read its state. The last is the model's own. `family` names
    a family with `layers`."""
    model = families.FAMILIES[family]
    x_N1TD = model.layers(cfg, params, {"tokens": tokens_T[None]})
    head = model.head(cfg, params)
    read_out = lambda x_1TD: read(model.logits(cfg, head, x_1TD)[0], targets_T, k)  # noqa: E731
    return jax.lax.map(read_out, x_N1TD)
