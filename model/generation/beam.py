"""Beam search for the most likely continuations (Graves 2012; Freitag & Al-Onaizan 2017), with the
same rules as transformers' `generate`.

A beam's score is the sum of its new tokens' log-probabilities, divided by their number to the power
of `length_penalty`. At every step the best W continuations that do not end stay open. Those that
end and are among the best W enter the list of the W best finished beams. A prompt is done when its
list is full and its best open beam, scored as if it ended here, is not better than the worst beam
in the list.

    P prompts, W beams of each, N tokens to add, B = P * W rows, J candidates of a step
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.generation import samplers
from model.generation.sample import check, decode, pad, prefill, prepare
from model.generation.samplers import Sampler
from model.transformer.config import ModelConfig

NEVER = -1e9  # a score below all others


@flax.struct.dataclass
class Beams:
    """The best continuations of each prompt, best first; everything after a stop token is 0."""

    tokens_PWN: jax.Array
    lengths_PW: jax.Array  # tokens added, the stop token included
    scores_PW: jax.Array


@flax.struct.dataclass
class Search:
    """The state that one step passes to the next."""

    step: jax.Array
    open: Beams  # scores are sums of log-probabilities, not yet divided by a length
    finished: Beams
    full_PW: jax.Array  # which places in the list of finished beams are taken
    hopeful_P: jax.Array  # whether an open beam may still enter the list
    caches: Any


def search(
    params: dict,
    cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    beams: int,
    *,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    stop: Sequence[int] = (),
    vocab_size: int = 0,
) -> Beams:
    """The `beams` best continuations of each prompt by up to `n_tokens` tokens, as numpy arrays.

    A positive `length_penalty` favours long continuations. With `early_stopping` a prompt is done
    when its list is full. Token ids from `vocab_size` on are padding (0: no padding). Raises
    ValueError that names the argument, its value and the valid values.
    """
    sampler = Sampler(vocab_size=vocab_size or cfg.vocab_size, stop=tuple(stop))
    check(cfg, prompts, n_tokens, sampler)
    check_beams(cfg, sampler, beams)
    prompts_PT, positions_PT, length = pad(cfg, prompts, n_tokens)
    result = _search(
        prepare(params, cfg), cfg, prompts_PT, positions_PT, samplers.as_arrays(sampler),
        jnp.float32(length_penalty), jnp.bool_(early_stopping), n_tokens, length, beams,
        beams * (1 + max(1, len(stop))),
    )  # fmt: skip
    return jax.tree.map(np.asarray, result)


def check_beams(cfg: ModelConfig, sampler: Sampler, beams: int) -> None:
    """Raises ValueError, in one line, for more beams than the vocabulary can fill."""
    most = min(sampler.vocab_size, cfg.vocab_size) // (1 + max(1, len(sampler.stop)))
    if not 1 <= beams <= most:
        raise ValueError(f"beams={beams} is out of range; use 1 to {most}")


@functools.partial(jax.jit, static_argnames=("cfg", "n_tokens", "length", "beams", "candidates"))
def _search(
    params, cfg, prompts_PT, positions_PT, sampler, length_penalty, early_stopping,
    n_tokens, length, beams, candidates,
) -> Beams:  # fmt: skip
    P, W, N = len(prompts_PT), beams, n_tokens
    logits_PV, caches = prefill(params, cfg, prompts_PT, positions_PT, length)
    caches = jax.tree.map(lambda x: jnp.repeat(x, W, axis=0), caches)
    starts_B = jnp.repeat(positions_PT.max(1) + 1, W)

    def advance(caches, tokens_B, step):
        positions_B1 = (starts_B + step - 1)[:, None]
        logits_B1V, caches = decode(params, cfg, tokens_B[:, None], positions_B1, caches)
        return logits_B1V[:, 0], caches

    return explore(
        jnp.repeat(logits_PV, W, axis=0), caches, advance, sampler, (P, W, N), candidates,
        lambda length: length.astype(jnp.float32) ** length_penalty, early_stopping,
    )  # fmt: skip


def explore(
    logits_BV: jax.Array,
    caches: Any,
    advance: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]],
    sampler: Sampler,
    shape: tuple[int, int, int],
    candidates: int,
    divisor: Callable[[jax.Array], jax.Array],
    early_stopping: jax.Array | bool = False,
    limits_P: jax.Array | None = None,
) -> Beams:
    """The best continuations [P, W, N], `shape`, after the logits of each row. Under jit.

    `advance(caches, tokens_B, step)` gives the logits [B, V] after one more token of each row, and
    the caches, whose arrays have the row first. A score is divided by `divisor(length)`. Prompt p
    is continued by `limits_P[p]` tokens at most; without limits by N.
    """
    P, W, N = shape
    limits_P = jnp.full(P, N) if limits_P is None else limits_P
    empty = Beams(
        jnp.zeros((P, W, N), jnp.int32),
        jnp.zeros((P, W), jnp.int32),
        jnp.full((P, W), NEVER, jnp.float32),
    )
    # All beams of a prompt are equal at first, so only one of them is continued.
    first = empty.replace(scores_PW=empty.scores_PW.at[:, 0].set(0))
    no_PW, yes_P = jnp.zeros((P, W), bool), jnp.ones(P, bool)
    state = Search(jnp.int32(0), first, empty, no_PW, yes_P, caches)
    pick = functools.partial(
        _pick,
        sampler=sampler,
        divisor=divisor,
        early=early_stopping,
        J=candidates,
        limits_P=limits_P,
    )
    state = pick(state, logits_BV)

    def more(state):
        done = early_stopping & state.full_PW.all()
        return (state.step < N) & state.hopeful_P.any() & ~done

    def body(state):
        last_PW1 = jax.lax.dynamic_slice_in_dim(state.open.tokens_PWN, state.step - 1, 1, axis=2)
        logits_BV, caches = advance(state.caches, last_PW1.ravel(), state.step)
        return pick(state.replace(caches=caches), logits_BV)

    return jax.lax.while_loop(more, body, state).finished


def _pick(state: Search, logits_BV, sampler, divisor, early, J, limits_P) -> Search:
    """Adds a token to every open beam; beams that end with it may enter the finished list."""
    P, W, _ = state.open.tokens_PWN.shape
    logprobs_BV = jax.nn.log_softmax(samplers.meaningful(logits_BV, sampler))
    sums_PX = (logprobs_BV.reshape(P, W, -1) + state.open.scores_PW[..., None]).reshape(P, -1)
    sums_PJ, index_PJ = jax.lax.top_k(sums_PX, J)
    parent_PJ, token_PJ = jnp.divmod(index_PJ, logits_BV.shape[-1])
    tokens_PJN = jnp.take_along_axis(state.open.tokens_PWN, parent_PJ[..., None], axis=1)
    tokens_PJN = tokens_PJN.at[:, :, state.step].set(token_PJ)
    length = state.step + 1
    ended_PJ = (token_PJ[..., None] == sampler.stop).any(-1) | (length >= limits_P)[:, None]

    best_PW = jax.lax.top_k(jnp.where(ended_PJ, NEVER + sums_PJ, sums_PJ), W)[1]
    continued = Beams(tokens_PJN, jnp.full((P, J), length), sums_PJ)
    continued = _rows(continued, best_PW)
    continued = continued.replace(
        scores_PW=jnp.where(jnp.take_along_axis(ended_PJ, best_PW, 1), NEVER, continued.scores_PW)
    )
    parent_B = (jnp.arange(P)[:, None] * W + jnp.take_along_axis(parent_PJ, best_PW, 1)).ravel()
    caches = jax.tree.map(lambda x: x[parent_B], state.caches)

    enters_PJ = ended_PJ & (jnp.arange(J) < W) & state.hopeful_P[:, None]
    enters_PJ &= ~(early & state.full_PW.all(1, keepdims=True))
    scores_PJ = jnp.where(enters_PJ, sums_PJ / divisor(length), NEVER)
    ended = Beams(tokens_PJN, jnp.full((P, J), length), scores_PJ)
    every = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), state.finished, ended)
    best_PW = jax.lax.top_k(every.scores_PW, W)[1]
    full_PW = jnp.take_along_axis(jnp.concatenate([state.full_PW, enters_PJ], 1), best_PW, 1)
    finished = _rows(every, best_PW)

    hope_P = continued.scores_PW[:, 0] / divisor(length)
    worst_P = jnp.where(full_PW.all(1), finished.scores_PW.min(1), NEVER)
    hopeful_P = state.hopeful_P & (hope_P > worst_P) & (length < limits_P)
    return Search(length, continued, finished, full_PW, hopeful_P, caches)


def _rows(beams: Beams, index_PW: jax.Array) -> Beams:
    """The beams of each prompt at these indices."""

    def take(x):
        return jnp.take_along_axis(x, index_PW.reshape(*index_PW.shape, *[1] * (x.ndim - 2)), 1)

    return jax.tree.map(take, beams)
