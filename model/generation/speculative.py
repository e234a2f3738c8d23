"""Speculative decoding: a small model drafts tokens, the large one checks them in one pass.

Leviathan et al. 2023 (arXiv:2211.17192), algorithm 1; Chen et al. 2023 (arXiv:2302.01318). Each
token of a draft d ~ q is accepted with probability min(1, p/q), up to the first rejection. The next
token is drawn from max(p - q, 0), normalised, or from p if the whole draft was accepted. Samples
have exactly the distribution p of the large model, for any small model.

    K tokens drafted per round, T = K + 1 read at once, B rows
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
class Models:
    """The large model and the draft model, with parameters from `prepare`."""

    params: dict
    draft_params: dict
    cfg: ModelConfig = flax.struct.field(pytree_node=False)
    draft_cfg: ModelConfig = flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class Drafting:
    """The state that one round passes to the next."""

    state: State  # of the large model; `step` counts rounds
    counts_B: jax.Array  # tokens drawn so far
    draft_caches: list[Cache]


@flax.struct.dataclass
class Draft:
    """The small model's draft of the next K tokens."""

    tokens_BK: jax.Array
    q_BKV: jax.Array  # the distributions they were drawn from
    seen_BTV: jax.Array  # tokens that occurred before each position


@flax.struct.dataclass
class Piece:
    """The tokens of one round, in rows of unequal length, and the counts of drafted and accepted
    tokens.
    """

    samples: Samples
    drafted: jax.Array
    accepted: jax.Array


def accept(
    keys_B: jax.Array, draft_BK: jax.Array, q_BKV: jax.Array, p_BTV: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(number of accepted tokens [B], the token that follows them [B])."""
    B, K, V = q_BKV.shape
    u_BK = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), (K,)))(keys_B)
    q_BK = jnp.take_along_axis(q_BKV, draft_BK[..., None], axis=2)[..., 0]
    p_BK = jnp.take_along_axis(p_BTV[:, :K], draft_BK[..., None], axis=2)[..., 0]
    count_B = jnp.cumprod(u_BK * q_BK < p_BK, axis=1).sum(1)
    zeros_B1V = jnp.zeros((B, 1, V))
    at_B11 = count_B[:, None, None]
    q_BV = jnp.take_along_axis(jnp.concatenate([q_BKV, zeros_B1V], axis=1), at_B11, axis=1)[:, 0]
    p_BV = jnp.take_along_axis(p_BTV, at_B11, axis=1)[:, 0]
    rest_BV = jnp.maximum(p_BV - q_BV, 0)
    # If p equals q, the difference is only rounding error, so draw from p.
    rest_BV = jnp.where(rest_BV.sum(1, keepdims=True) > 0, rest_BV, p_BV)
    draw = lambda key, p_V: jax.random.categorical(jax.random.fold_in(key, 1), jnp.log(p_V))  # noqa: E731
    return count_B, jax.vmap(draw)(keys_B, rest_BV).astype(jnp.int32)


def draft_tokens(
    models: Models,
    drafting: Drafting,
    positions_BT: jax.Array,
    sampler: Sampler,
    keys_B: jax.Array,
) -> tuple[Draft, list[Cache]]:
    """A draft for each row, and the small model's caches with the whole draft added."""
    V = models.cfg.vocab_size

    def step(carry, at):
        tokens_B, seen_BV, caches = carry
        number, positions_B = at
        logits_B1V, caches = decode(
            models.draft_params, models.draft_cfg, tokens_B[:, None], positions_B[:, None], caches
        )
        # Models with the same tokenizer may pad the vocabulary to different sizes.
        logits_BV = samplers.meaningful(logits_B1V[:, 0, :V], sampler)
        short = V - logits_BV.shape[1]
        logits_BV = jnp.pad(logits_BV, ((0, 0), (0, short)), constant_values=-jnp.inf)
        logits_BV = samplers.process(logits_BV, sampler, seen_BV)
        step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, 2 + number)
        drawn_B = jax.vmap(jax.random.categorical)(step_keys_B, logits_BV).astype(jnp.int32)
        one = drawn_B, jax.nn.softmax(logits_BV), seen_BV
        return (drawn_B, samplers.mark(seen_BV, drawn_B), caches), one

    # The last step only caches the last drafted token, in case the whole draft is accepted.
    numbers_T = jnp.arange(positions_BT.shape[1])
    state = drafting.state
    (_, _, caches), (draft_TB, q_TBV, seen_TBV) = jax.lax.scan(
        step, (state.tokens_B, state.seen_BV, drafting.draft_caches), (numbers_T, positions_BT.T)
    )
    draft = Draft(draft_TB[:-1].T, q_TBV[:-1].swapaxes(0, 1), seen_TBV.swapaxes(0, 1))
    return draft, caches


@functools.partial(jax.jit, static_argnames=("ahead", "length"), donate_argnames="drafting")
def advance(
    models: Models,
    drafting: Drafting,
    sampler: Sampler,
    n_tokens: jax.Array,
    ahead: int,
    length: int,
) -> tuple[Drafting, Piece]:
    """One round: up to `ahead` + 1 more tokens in every live row, `n_tokens` in total.

    The draft model's contexts hold `length` tokens.
    """
    V, state, counts_B = models.cfg.vocab_size, drafting.state, drafting.counts_B
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(state.keys_B, state.step)
    positions_BT = (state.starts_B + counts_B - 1)[:, None] + jnp.arange(ahead + 1)
    positions_BT = jnp.where(positions_BT < length, positions_BT, -1)
    draft, draft_caches = draft_tokens(models, drafting, positions_BT, sampler, keys_B)
    read_BT = jnp.concatenate([state.tokens_B[:, None], draft.tokens_BK], axis=1)
    logits_BTV, caches = decode(models.params, models.cfg, read_BT, positions_BT, state.caches)
    logits_BTV = samplers.meaningful(logits_BTV, sampler)
    p_MV = samplers.process(logits_BTV.reshape(-1, V), sampler, draft.seen_BTV.reshape(-1, V))
    p_BTV = jax.nn.softmax(p_MV).reshape(logits_BTV.shape)
    accepted_B, next_B = accept(keys_B, draft.tokens_BK, draft.q_BKV, p_BTV)

    drawn_BT = _followed(draft.tokens_BK, accepted_B, next_B)
    stops_BT = (drawn_BT[..., None] == sampler.stop).any(-1)
    lengths_B = _lengths(stops_BT, accepted_B, n_tokens - counts_B)
    lengths_B = jnp.where(state.live_B, lengths_B, 0)
    kept_BT = jnp.arange(ahead + 1) < lengths_B[:, None]
    samples = _samples(drawn_BT, logits_BTV, kept_BT, lengths_B)
    piece = Piece(samples, ahead * state.live_B.sum(), (accepted_B * state.live_B).sum())
    rows_B1 = jnp.arange(len(counts_B))[:, None]
    counts_B += lengths_B
    state = state.replace(
        step=state.step + 1,
        tokens_B=next_B,
        live_B=state.live_B & ~(stops_BT & kept_BT).any(1) & (counts_B < n_tokens),
        seen_BV=state.seen_BV.at[rows_B1, jnp.where(kept_BT, drawn_BT, V)].set(True, mode="drop"),
        caches=caches,
    )
    return Drafting(state, counts_B, draft_caches), piece


def _followed(draft_BK: jax.Array, accepted_B: jax.Array, next_B: jax.Array) -> jax.Array:
    """The accepted tokens, then the next one, then 0 [B, T]."""
    time_T = jnp.arange(draft_BK.shape[1] + 1)
    padded_BT = jnp.pad(draft_BK, ((0, 0), (0, 1)))
    drawn_BT = jnp.where(time_T < accepted_B[:, None], padded_BT, 0)
    return jnp.where(time_T == accepted_B[:, None], next_B[:, None], drawn_BT)


def _lengths(stops_BT: jax.Array, accepted_B: jax.Array, room_B: jax.Array) -> jax.Array:
    """The number of tokens added to each row [B]: the accepted ones and the next, up to a stop
    token and at most `room`.
    """
    T = stops_BT.shape[1]
    stops_BT = stops_BT & (jnp.arange(T) <= accepted_B[:, None])
    to_stop_B = jnp.where(stops_BT.any(1), stops_BT.argmax(1) + 1, T)
    return jnp.minimum(jnp.minimum(accepted_B + 1, to_stop_B), room_B)


def _samples(drawn_BT, logits_BTV, kept_BT, lengths_B) -> Samples:
    """The kept tokens with their log-probabilities, without the most likely alternatives."""
    logprobs_BTV = jax.nn.log_softmax(logits_BTV)
    logprobs_BT = jnp.take_along_axis(logprobs_BTV, drawn_BT[..., None], axis=2)[..., 0]
    empty_BT0 = jnp.zeros((*kept_BT.shape, 0))
    return Samples(
        tokens_BN=jnp.where(kept_BT, drawn_BT, 0),
        logprobs_BN=jnp.where(kept_BT, logprobs_BT, 0),
        lengths_B=lengths_B,
        top_tokens_BNM=empty_BT0.astype(jnp.int32),
        top_logprobs_BNM=empty_BT0,
    )


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
    """Like `generation.sample.stream`, one piece per round; rows advance at their own pace."""
    check(cfg, prompts, n_tokens, sampler, n)
    check_draft(cfg, draft_cfg, prompts, n_tokens, ahead)
    models = Models(prepare(params, cfg), prepare(draft_params, draft_cfg), cfg, draft_cfg)
    prompts_PT, positions_PT, length = pad(cfg, prompts, n_tokens)
    # Both caches keep the keys that the token after a rejected draft needs.
    sampler, at_once = samplers.as_arrays(sampler), ahead + 1
    state, drawn = begin(
        models.params, cfg, prompts_PT, positions_PT, jax.random.key(seed), sampler, n, length,
        top=0, at_once=at_once,
    )  # fmt: skip
    draft_length = min(length, draft_cfg.context_length)
    draft_caches = _draft_caches(
        models.draft_params, draft_cfg, prompts_PT, positions_PT, n, draft_length, at_once
    )
    piece = Piece(drawn, np.int32(0), np.int32(0))
    state = state.replace(live_B=state.live_B & (n_tokens > 1))
    drafting = Drafting(state, jnp.ones_like(state.starts_B), draft_caches)
    while True:
        piece = jax.tree.map(np.asarray, piece)
        yield piece
        state = drafting.state
        if goes_on is not None:
            state = state.replace(live_B=state.live_B & goes_on(piece.samples))
        if not np.asarray(state.live_B).any():
            return
        drafting, piece = advance(
            models, drafting.replace(state=state), sampler, jnp.int32(n_tokens), ahead, draft_length
        )


def sample(
    params: dict,
    cfg: ModelConfig,
    draft_params: dict,
    draft_cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    **options: int,
) -> tuple[Samples, float]:
    """The joined pieces of `stream`, with the same arguments, and the share of accepted tokens."""
    models = params, cfg, draft_params, draft_cfg
    pieces = list(stream(*models, prompts, n_tokens, sampler, **options))
    return join([piece.samples for piece in pieces], n_tokens), acceptance(pieces)


def acceptance(pieces: Sequence[Piece]) -> float:
    """The share of drafted tokens that were accepted; 0 if none were drafted."""
    return float(sum(p.accepted for p in pieces) / max(1, sum(p.drafted for p in pieces)))


def check_draft(
    cfg: ModelConfig,
    draft_cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    ahead: int,
) -> None:
    """Raises ValueError, in one line, if the draft model does not support these prompts."""
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
