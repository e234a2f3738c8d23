"""Greedy, sampled and beam-searched outputs of any family with `start` and `step`.

    P rows of a batch, W beams of each, N tokens to add, B = P * W rows of a search

A row's output begins after the token `begin`, which is the model's first input. `decoder.py`'s own
searches are in `sample.py` and `beam.py`; the search of beams is the same code.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.generation import beam, samplers
from model.generation.beam import Beams
from model.generation.samplers import Sampler


@flax.struct.dataclass
class Drawn:
    """One output for each row; everything after a stop token is 0."""

    tokens_PN: jax.Array
    lengths_P: jax.Array  # tokens drawn, the stop token included
    logprobs_PN: jax.Array  # nats, the model's own, before the sampler changes the distribution


def gnmt_penalty(length: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """lp(Y) = (5 + |Y|)^α / (5 + 1)^α, which divides a beam's log-probability: Wu et al. 2016,
    eq. 14. α = 0 changes nothing; a larger one favours long outputs."""
    return ((5.0 + length) / 6.0) ** alpha


def draw(
    family: Any,
    cfg: Any,
    params: Mapping,
    batch: Mapping[str, jax.Array],
    n_tokens: int,
    sampler: Sampler,
    begin: int,
    seed: int = 0,
    *,
    first: int = 0,
    limits: Sequence[int] | None = None,
) -> Drawn:
    """An output of up to `n_tokens` tokens for each row of `batch`, as numpy arrays; of up to
    `limits[p]` where they are given. A sampler of temperature 0 is greedy. A row's draws depend on
    the seed and its number alone, which counts from `first`."""
    arrays, key = samplers.as_arrays(sampler), jax.random.key(seed)
    limits_P = _limits(batch, n_tokens, limits)
    how = arrays, jnp.int32(begin), key, jnp.int32(first), limits_P
    drawn = _draw(family, cfg, params, batch, n_tokens, *how)
    return jax.tree.map(np.asarray, drawn)


@functools.partial(jax.jit, static_argnames=("family", "cfg", "n_tokens"))
def _draw(family, cfg, params, batch, n_tokens, sampler, begin, key, first, limits_P) -> Drawn:
    P = _rows(batch)
    keys_P = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(P))
    zeros_PN = jnp.zeros((P, n_tokens))
    empty = Drawn(zeros_PN.astype(jnp.int32), jnp.zeros(P, jnp.int32), zeros_PN)
    cache = family.start(cfg, params, batch, n_tokens)
    seen_PV = jnp.zeros((P, cfg.vocab_size), bool)
    last_P, live_P = jnp.full(P, begin, jnp.int32), jnp.ones(P, bool)

    def more(carry):
        *_, live_P, step = carry
        return (step < n_tokens) & live_P.any()

    def body(carry):
        drawn, cache, seen_PV, last_P, live_P, step = carry
        logits_PV, cache = family.step(cfg, params, cache, last_P)
        logits_PV = samplers.meaningful(logits_PV, sampler)
        step_keys_P = jax.vmap(jax.random.fold_in, (0, None))(keys_P, step)
        tokens_P = samplers.draw(step_keys_P, logits_PV, sampler, seen_PV)
        logprobs_PV = jax.nn.log_softmax(logits_PV)
        logprobs_P = jnp.take_along_axis(logprobs_PV, tokens_P[:, None], axis=1)[:, 0]
        drawn = Drawn(
            drawn.tokens_PN.at[:, step].set(jnp.where(live_P, tokens_P, 0)),
            drawn.lengths_P + live_P,
            drawn.logprobs_PN.at[:, step].set(jnp.where(live_P, logprobs_P, 0)),
        )
        live_P &= ~(tokens_P[:, None] == sampler.stop).any(1) & (step + 1 < limits_P)
        return drawn, cache, samplers.mark(seen_PV, tokens_P), tokens_P, live_P, step + 1

    carry = (empty, cache, seen_PV, last_P, live_P, jnp.int32(0))
    return jax.lax.while_loop(more, body, carry)[0]


def search(
    family: Any,
    cfg: Any,
    params: Mapping,
    batch: Mapping[str, jax.Array],
    n_tokens: int,
    beams: int,
    begin: int,
    *,
    length_penalty: float = 0.6,
    stop: Sequence[int] = (),
    vocab_size: int = 0,
    limits: Sequence[int] | None = None,
) -> Beams:
    """The `beams` best outputs of up to `n_tokens` tokens for each row of `batch`, best first, as
    numpy arrays; of up to `limits[p]` where they are given. A score is the log-probability divided
    by `gnmt_penalty`. One beam is greedy.

    Token ids from `vocab_size` on are padding (0: no padding). Raises ValueError for fewer than one
    beam.
    """
    if beams < 1:
        raise ValueError(f"beams={beams} is out of range; use 1 or more")
    sampler = Sampler(vocab_size=vocab_size or cfg.vocab_size, stop=tuple(stop))
    found = _search(
        family, cfg, params, batch, n_tokens, beams, beams * (1 + max(1, len(stop))),
        samplers.as_arrays(sampler), jnp.int32(begin), jnp.float32(length_penalty),
        _limits(batch, n_tokens, limits),
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


@functools.partial(jax.jit, static_argnames=("family", "cfg", "n_tokens", "beams", "candidates"))
def _search(
    family, cfg, params, batch, n_tokens, beams, candidates, sampler, begin, alpha, limits_P
) -> Beams:
    P = _rows(batch)
    cache = family.start(cfg, params, batch, n_tokens)
    logits_PV, cache = family.step(cfg, params, cache, jnp.full(P, begin, jnp.int32))
    logits_BV, cache = jax.tree.map(lambda x: jnp.repeat(x, beams, axis=0), (logits_PV, cache))
    advance = lambda cache, tokens_B, step: family.step(cfg, params, cache, tokens_B)  # noqa: E731
    divisor = functools.partial(gnmt_penalty, alpha=alpha)
    shape = P, beams, n_tokens
    return beam.explore(
        logits_BV, cache, advance, sampler, shape, candidates, divisor, limits_P=limits_P
    )


def _rows(batch: Mapping[str, jax.Array]) -> int:
    return len(jax.tree.leaves(batch)[0])


def _limits(batch: Mapping[str, jax.Array], n_tokens: int, limits: Sequence[int] | None):
    """The most tokens of each output [P]."""
    return jnp.asarray([n_tokens] * _rows(batch) if limits is None else limits, jnp.int32)
