"""Reads one token of each row at a time, with the functions `start` and `step` of a family."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from model.generation.sample import Reader


@functools.cache
def reader(family: Any) -> Reader:
    """The Reader of a family that has `start` and `step`. The same object every time, because
    compiled programs are found by it."""
    bounded = not hasattr(family, "hidden_from")  # a state goes on for ever
    prefill, decode = (functools.partial(of, family) for of in (_prefill, _decode))
    return Reader(lambda params, cfg: params, prefill, decode, bounded)


def _prefill(family, params, cfg, prompts_PT, positions_PT, length, at_once=1):
    """Padding, at position -1, changes neither the cache nor the logits."""
    cache = family.start(cfg, params, {"tokens": prompts_PT}, length)
    P = len(prompts_PT)

    def read(before, xs):
        tokens_P, real_P = xs
        after = family.step(cfg, params, before[1], tokens_P)
        keep = lambda a, b: jnp.where(real_P.reshape(P, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
        return jax.tree.map(keep, after, before), None

    logits = jax.eval_shape(functools.partial(family.step, cfg), params, cache, prompts_PT[:, 0])[0]
    xs = jnp.asarray(prompts_PT).T, (positions_PT >= 0).T
    (logits_PV, cache), _ = jax.lax.scan(read, (jnp.zeros(logits.shape), cache), xs)
    return logits_PV, cache


def _decode(family, params, cfg, tokens_BT, positions_BT, caches):
    """The logits [B, 1, V] after one more token of each row, and the caches with it in."""
    logits_BV, caches = family.step(cfg, params, caches, tokens_BT[:, 0])
    return logits_BV[:, None], caches
