"""This file decodes speculatively: a small model drafts tokens, the large one reads them at once.

Leviathan et al. 2023 (arXiv:2211.17192), algorithm 1; Chen et al. 2023 (arXiv:2302.01318). Of a
draft d ~ q the longest prefix is kept of which each token passes with probability min(1, p/q); then
follows one token of the distribution max(p - q, 0), scaled to 1, or of p after the whole draft.
What comes out has exactly the distribution p of the large model, whatever the small one does.

    K tokens drafted at a time, T = K + 1 read at once, B rows
"""

import functools
from collections.abc import Iterator, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.generation import samplers
from model.generation.sample import (
    GoesOn,
    Samples,
    State,
    begin,
    check,
    decode,
    join,
    pad,
    prefill,
    prepare,
)
from model.generation.samplers import Sampler
from model.transformer.attention import Cache
from model.transformer.config import ModelConfig


@flax.struct.dataclass
class Piece:
    """What one round adds: rows of unequal length, and how much of what was drafted passed."""

    samples: Samples
    drafted: jax.Array
    accepted: jax.Array


def accept(
    keys_B: jax.Array, draft_BK: jax.Array, q_BKV: jax.Array, p_BTV: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(how many drafted tokens pass [B], the token that follows them [B])."""
    B, K, V = q_BKV.shape
    u_BK = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), (K,)))(keys_B)
    q_BK = jnp.take_along_axis(q_BKV, draft_BK[..., None], axis=2)[..., 0]
    p_BK = jnp.take_along_axis(p_BTV[:, :K], draft_BK[..., None], axis=2)[..., 0]
    count_B = jnp.cumprod(u_BK * q_BK < p_BK, axis=1).sum(1)
    nothing_B1V = jnp.zeros((B, 1, V))
    at_B11 = count_B[:, None, None]
    q_BV = jnp.take_along_axis(jnp.concatenate([q_BKV, nothing_B1V], axis=1), at_B11, axis=1)[:, 0]
    p_BV = jnp.take_along_axis(p_BTV, at_B11, axis=1)[:, 0]
    rest_BV = jnp.maximum(p_BV - q_BV, 0)
    # Equal distributions leave rounding alone, which would be no distribution.
    rest_BV = jnp.where(rest_BV.sum(1, keepdims=True) > 0, rest_BV, p_BV)
    draw = lambda key, p_V: jax.random.categorical(jax.random.fold_in(key, 1), jnp.log(p_V))  # noqa: E731
    return count_B, jax.vmap(draw)(keys_B, rest_BV).astype(jnp.int32)


def draft_tokens(
    params: dict, cfg: ModelConfig, state: State, positions_BT: jax.Array, caches: list[Cache],
    sampler: Sampler, keys_B: jax.Array, V: int,
) -> tuple[jax.Array, jax.Array, jax.Array, list[Cache]]:  # fmt: skip
    """Tokens [B, K], the distributions they are drawn from [B, K, V], what had occurred before each
    position [B, T, V], and the caches with the whole draft in."""

    def step(carry, at):
        tokens_B, seen_BV, caches = carry
        number, positions_B = at
        logits_B1V, caches = decode(params, cfg, tokens_B[:, None], positions_B[:, None], caches)
        # Two models of one tokenizer may have padded its vocabulary differently.
        logits_BV = samplers.meaningful(logits_B1V[:, 0, :V], sampler)
        short = V - logits_BV.shape[1]
        logits_BV = jnp.pad(logits_BV, ((0, 0), (0, short)), constant_values=-jnp.inf)
        logits_BV = samplers.process(logits_BV, sampler, seen_BV)
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, 2 + number)
        drawn_B = jax.vmap(jax.random.categorical)(step_keys_B, logits_BV).astype(jnp.int32)
        one = drawn_B, jax.nn.softmax(logits_BV), seen_BV
        return (drawn_B, samplers.mark(seen_BV, drawn_B), caches), one

    # The last step is for its key and value alone: the whole draft may pass.
    numbers_T = jnp.arange(positions_BT.shape[1])
    (_, _, caches), (draft_TB, q_TBV, seen_TBV) = jax.lax.scan(
        step, (state.tokens_B, state.seen_BV, caches), (numbers_T, positions_BT.T)
    )
    return draft_TB[:-1].T, q_TBV[:-1].swapaxes(0, 1), seen_TBV.swapaxes(0, 1), caches


@functools.partial(
    jax.jit,
    static_argnames=("cfg", "draft_cfg", "ahead", "length"),
    donate_argnames=("state", "draft_caches"),
)
def advance(
    params: dict,
    cfg: ModelConfig,
    draft_params: dict,
    draft_cfg: ModelConfig,
    state: State,
    counts_B: jax.Array,
    draft_caches: list[Cache],
    sampler: Sampler,
    n_tokens: jax.Array,
    ahead: int,
    length: int,
) -> tuple[State, jax.Array, list[Cache], Piece]:
    """One round: up to `ahead` + 1 more tokens in every row that goes on.

    `counts` [B] are the tokens that each row has; `state.step` counts rounds.
    """
    V, K = cfg.vocab_size, ahead
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(state.keys_B, state.step)
    positions_BT = (state.starts_B + counts_B - 1)[:, None] + jnp.arange(K + 1)
    positions_BT = jnp.where(positions_BT < length, positions_BT, -1)
    draft_BK, q_BKV, seen_BTV, draft_caches = draft_tokens(
        draft_params, draft_cfg, state, positions_BT, draft_caches, sampler, keys_B, V
    )
    read_BT = jnp.concatenate([state.tokens_B[:, None], draft_BK], axis=1)
    logits_BTV, caches = decode(params, cfg, read_BT, positions_BT, state.caches)
    logits_BTV = samplers.meaningful(logits_BTV, sampler)
    p_MV = samplers.process(logits_BTV.reshape(-1, V), sampler, seen_BTV.reshape(-1, V))
    p_BTV = jax.nn.softmax(p_MV).reshape(logits_BTV.shape)
    passed_B, next_B = accept(keys_B, draft_BK, q_BKV, p_BTV)

    time_T = jnp.arange(K + 1)
    drawn_BT = jnp.where(time_T < passed_B[:, None], jnp.pad(draft_BK, ((0, 0), (0, 1))), 0)
    drawn_BT = jnp.where(time_T == passed_B[:, None], next_B[:, None], drawn_BT)
    stops_BT = (drawn_BT[..., None] == sampler.stop).any(-1) & (time_T <= passed_B[:, None])
    before_stop_B = jnp.where(stops_BT.any(1), stops_BT.argmax(1) + 1, K + 1)
    lengths_B = jnp.minimum(jnp.minimum(passed_B + 1, before_stop_B), n_tokens - counts_B)
    lengths_B = jnp.where(state.live_B, lengths_B, 0)
    kept_BT = time_T < lengths_B[:, None]
    logprobs_BTV = jax.nn.log_softmax(logits_BTV)
    logprobs_BT = jnp.take_along_axis(logprobs_BTV, drawn_BT[..., None], axis=2)[..., 0]
    none_BT0 = jnp.zeros((*kept_BT.shape, 0))
    samples = Samples(
        jnp.where(kept_BT, drawn_BT, 0), jnp.where(kept_BT, logprobs_BT, 0), lengths_B,
        none_BT0.astype(jnp.int32), none_BT0,
    )  # fmt: skip
    rows_B1 = jnp.arange(len(counts_B))[:, None]
    counts_B += lengths_B
    piece = Piece(samples, K * state.live_B.sum(), (passed_B * state.live_B).sum())
    state = state.replace(
        step=state.step + 1,
        tokens_B=next_B,
        live_B=state.live_B & ~(stops_BT & kept_BT).any(1) & (counts_B < n_tokens),
        seen_BV=state.seen_BV.at[rows_B1, jnp.where(kept_BT, drawn_BT, V)].set(True, mode="drop"),
        caches=caches,
    )
    return state, counts_B, draft_caches, piece


@functools.partial(jax.jit, static_argnames=("cfg", "n", "length", "at_once"))
def _draft_caches(params, cfg, prompts_PT, positions_PT, n, length, at_once) -> list[Cache]:
    _, caches = prefill(params, cfg, prompts_PT, positions_PT, length, at_once)
    return jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), caches)


def stream(
    params: dict,
    cfg: ModelConfig,
    draft_params: dict,
    draft_cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    *,
    n: int = 1,
    seed: int = 0,
    ahead: int = 4,
    goes_on: GoesOn | None = None,
) -> Iterator[Piece]:
    """As `model.sample.stream`, in pieces of a round each; rows run ahead of one another."""
    check(cfg, prompts, n_tokens, sampler, n)
    check_draft(cfg, draft_cfg, prompts, n_tokens, ahead)
    params, draft_params = prepare(params, cfg), prepare(draft_params, draft_cfg)
    prompts_PT, positions_PT, length = pad(cfg, prompts, n_tokens)
    # Both caches keep what a rejected draft's successor still sees.
    sampler, at_once = samplers.as_arrays(sampler), ahead + 1
    state, drawn = begin(
        params, cfg, prompts_PT, positions_PT, jax.random.key(seed), sampler, n, length, 0, at_once
    )
    draft_length = min(length, draft_cfg.context_length)
    draft_caches = _draft_caches(
        draft_params, draft_cfg, prompts_PT, positions_PT, n, draft_length, at_once
    )
    piece = Piece(drawn, np.int32(0), np.int32(0))
    counts_B = jnp.ones_like(state.starts_B)
    state = state.replace(live_B=state.live_B & (n_tokens > 1))
    while True:
        piece = jax.tree.map(np.asarray, piece)
        yield piece
        if goes_on is not None:
            state = state.replace(live_B=state.live_B & goes_on(piece.samples))
        if not np.asarray(state.live_B).any():
            return
        state, counts_B, draft_caches, piece = advance(
            params, cfg, draft_params, draft_cfg, state, counts_B, draft_caches, sampler,
            jnp.int32(n_tokens), ahead, draft_length,
        )  # fmt: skip


def sample(*model_and_prompts, **how) -> tuple[Samples, float]:
    """All pieces of `stream`, which takes the same, as one; and the share of drafts that passed."""
    pieces = list(stream(*model_and_prompts, **how))
    n_tokens = how["n_tokens"] if "n_tokens" in how else model_and_prompts[5]
    return join([piece.samples for piece in pieces], n_tokens), acceptance(pieces)


def acceptance(pieces: Sequence[Piece]) -> float:
    """The share of drafted tokens that passed; 0 where none were drafted."""
    return float(sum(p.accepted for p in pieces) / max(1, sum(p.drafted for p in pieces)))


def check_draft(
    cfg: ModelConfig,
    draft_cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    ahead: int,
) -> None:
    """ValueError for a draft model that can't follow, in one line."""
    if not 1 <= ahead <= 64:
        raise ValueError(f"ahead={ahead} is out of range; use 1 to 64")
    needed = max(map(len, prompts)) + n_tokens
    if draft_cfg.context_length < needed:
        raise ValueError(
            f"the draft's model.context_length={draft_cfg.context_length} is less than the {needed}"
            " tokens of prompt and sample; shorten them, or draft with another model"
        )
    highest = max(max(prompt) for prompt in prompts)
    if highest >= draft_cfg.vocab_size:
        raise ValueError(
            f"prompt holds token {highest}; the draft's model.vocab_size={draft_cfg.vocab_size}"
        )
