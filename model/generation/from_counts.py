"""Sampling from a counted family, which gives the distribution after any context.

`stream` yields the pieces that `sample.stream` yields for a decoder, one token at a time, and its
draws depend on the seed, the row and the step in the same way.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.families import Counted
from model.generation import sample, samplers
from model.generation.samplers import Sampler

_next = functools.partial(jax.jit, static_argnames="top")(sample.draw)


def stream(
    family: Counted,
    fitted: Any,
    cfg: Any,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    *,
    n: int = 1,
    seed: int = 0,
    top: int = 0,
    goes_on: sample.GoesOn | None = None,
) -> Iterator[sample.Samples]:
    """`n` continuations of each prompt by up to `n_tokens` tokens, as numpy arrays [P * n, 1].

    Raises ValueError as `sample.check` does. No text is too long.
    """
    sample.check(cfg, prompts, n_tokens, sampler, n, top, bounded=False)
    sampler = samplers.as_arrays(sampler)
    rows = [list(prompt) for prompt in prompts for _ in range(n)]
    B = len(rows)
    seen_BV = np.zeros((B, cfg.vocab_size), bool)
    for row, seen_V in zip(rows, seen_BV, strict=True):
        seen_V[row] = True
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(B))
    zeros_B, starts_B = jnp.zeros(B, jnp.int32), jnp.array([len(row) for row in rows])
    state = sample.State(
        jnp.int32(0), zeros_B, jnp.ones(B, bool), starts_B, keys_B, jnp.asarray(seen_BV), caches=[]
    )
    for _ in range(n_tokens):
        p_BV = np.stack([family.distribution(fitted, np.array(row)) for row in rows])
        state, drawn = _next(state, jnp.log(jnp.asarray(p_BV, jnp.float32)), sampler, top)
        drawn = jax.tree.map(np.asarray, drawn)
        yield drawn
        for row, tokens in zip(rows, drawn.tokens_BN, strict=True):
            row.append(int(tokens[0]))
        if goes_on is not None:
            state = state.replace(live_B=state.live_B & goes_on(drawn))
        if not np.asarray(state.live_B).any():
            return
