"""Pairs of answers to one prompt: both go through the model in one batch of twice the rows.

The rows of a pair are neighbours, so that on a mesh both stay on the device that holds the pair.
"""

from typing import Any

import jax
import jax.numpy as jnp

from model.families import Trained
from train.objectives import loss_in_chunks
from train.objectives.cross_entropy import cross_entropy

FIELDS = ("chosen", "rejected", "chosen_weights", "rejected_weights")


def joined(batch: dict) -> tuple[jax.Array, jax.Array]:
    """(tokens [2B, T], weights [2B, T]) of both answers of each pair. A weight is 1 where the next
    token belongs to the answer."""
    alternate = lambda a, b: jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])  # noqa: E731
    weights = alternate(batch["chosen_weights"], batch["rejected_weights"])
    return alternate(batch["chosen"], batch["rejected"]), weights


def apart(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(chosen [B, ...], rejected [B, ...]) of rows [2B, ...] in the order of `joined`."""
    x = x.reshape(-1, 2, *x.shape[1:])
    return x[:, 0], x[:, 1]


def counted(batch: dict) -> jax.Array:
    """1 for each pair [B] that has two answers, 0 for one that only fills up a batch."""
    lengths = (batch[name].sum(-1) for name in ("chosen_weights", "rejected_weights"))
    return jnp.minimum(*lengths).clip(0, 1)


def segments(weights_RT: jax.Array) -> jax.Array:
    """1 for the tokens of each row up to the last one of its answer, 0 for padding [R, T]."""
    to_come_RT = jnp.flip(jnp.cumsum(jnp.flip(weights_RT, -1), -1), -1)
    # The last token of the answer follows the last place with a weight.
    return (jnp.pad(to_come_RT, ((0, 0), (1, 0)), constant_values=1)[:, :-1] > 0).astype(jnp.int32)


def log_probabilities(
    model: Trained,
    params: dict,
    cfg: Any,
    chunk: int,
    tokens_RT: jax.Array,
    weights_RT: jax.Array,
    key: jax.Array | None = None,
) -> jax.Array:
    """log p of the answer of each row given its prompt, in nats [R]. `cfg` is the Config of the
    family. Logits exist for `chunk` places of each row at a time; 0: for all."""
    head = model.head(cfg, params)
    x_RTD = model.hidden(cfg, params, {"tokens": tokens_RT}, key)
    targets_RT = jnp.pad(tokens_RT[:, 1:], ((0, 0), (0, 1)))
    score = lambda x, targets: cross_entropy(model.logits(cfg, head, x), targets)[0]  # noqa: E731
    score = jax.checkpoint(score) if chunk else score
    nll_RT = loss_in_chunks.each(score, chunk, x_RTD, targets_RT)
    return -(nll_RT * weights_RT).sum(-1)
