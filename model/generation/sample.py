"""Sampling: reads prompts in one pass, then decodes token by token with the key/value cache.

`sample` takes lists of tokens, validates the request and returns numpy arrays; `stream` yields the
same in pieces. They call two jitted programs, `begin` and `advance`. The randomness of a row
depends only on the key, its number and the step: a larger n adds rows, a larger n_tokens adds
tokens, and neither changes the others.

    P prompts, T their padded length, N tokens to add, B = P * n rows, M most likely tokens shown
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.generation import samplers
from model.generation.samplers import Sampler
from model.transformer.attention import Cache
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, empty_caches, unstack

BUCKET = 32  # lengths are padded to a multiple of it, so that few programs are compiled
CHUNK = 32  # steps of one call


@flax.struct.dataclass
class Samples:
    """Rows [P * n], grouped by prompt. Everything after a row's stop token is 0.

    Log-probabilities, in nats, are the model's own, before the sampler changes the distribution.
    """

    tokens_BN: jax.Array
    logprobs_BN: jax.Array
    lengths_B: jax.Array  # tokens drawn, the stop token included
    top_tokens_BNM: jax.Array  # most likely first
    top_logprobs_BNM: jax.Array


@flax.struct.dataclass
class State:
    """The state that one step passes to the next."""

    step: jax.Array  # tokens drawn so far
    tokens_B: jax.Array  # the last of them, not yet in the caches
    live_B: jax.Array  # whether each row continues
    starts_B: jax.Array  # tokens of each row's prompt
    keys_B: jax.Array
    seen_BV: jax.Array  # tokens that occurred, in the prompt or since
    caches: Any


@functools.partial(jax.jit, static_argnames="cfg")
def _prepared(params: dict, cfg: ModelConfig) -> dict:
    def cast(path, x):
        plain = getattr(path[-1], "key", "") in ("kernel", "embedding")
        return x.astype(cfg.dtype) if plain else x

    return unstack(jax.tree_util.tree_map_with_path(cast, params), cfg)


def prepare(params: dict, cfg: ModelConfig) -> dict:
    """Parameters in the form that decodes fastest: one tree per layer, in the computation's dtype.

    `sample`, `stream` and `beam.search` accept either form, and convert the stored one every call.
    """
    return params if isinstance(params["blocks"], tuple) else _prepared(params, cfg)


def prefill(
    params: dict, cfg: ModelConfig, prompts_PT: jax.Array, positions_PT: jax.Array, length: int,
    at_once: int = 1,
) -> tuple[jax.Array, list[Cache]]:  # fmt: skip
    """Logits [P, V] after each prompt, and caches for contexts of `length` that hold the prompts.

    Padding, on either side, has position -1: no query sees it and no cache keeps it.
    """
    caches = empty_caches(cfg, len(prompts_PT), length, at_once)
    x_PTD, caches = Decoder(cfg).apply(
        {"params": params}, prompts_PT, positions_PT, caches, method="prefill"
    )
    last_P11 = positions_PT.argmax(1)[:, None, None]
    last_P1D = jnp.take_along_axis(x_PTD, last_P11, axis=1)
    logits_P1V = Decoder(cfg).apply({"params": params}, last_P1D, method="logits")
    return logits_P1V[:, 0].astype(jnp.float32), caches


def decode(
    params: dict, cfg: ModelConfig, tokens_BT: jax.Array, positions_BT: jax.Array,
    caches: list[Cache],
) -> tuple[jax.Array, list[Cache]]:  # fmt: skip
    """Logits [B, T, V] after each of T more tokens per row, and the caches with them in."""
    logits_BTV, caches = Decoder(cfg).apply(
        {"params": params}, tokens_BT, positions_BT, caches, method="decode"
    )
    return logits_BTV.astype(jnp.float32), caches


class Reader(NamedTuple):
    """How a family reads tokens: functions with the arguments and results of those above."""

    prepare: Callable
    prefill: Callable
    decode: Callable
    bounded: bool  # whether a context has at most cfg.context_length tokens


DECODER = Reader(prepare, prefill, decode, bounded=True)


@functools.partial(jax.jit, static_argnames=("cfg", "n", "length", "top", "at_once", "reader"))
def begin(
    params: dict,
    cfg: ModelConfig,
    prompts_PT: jax.Array,
    positions_PT: jax.Array,
    key: jax.Array,
    sampler: Sampler,
    n: int,
    length: int,
    top: int,
    at_once: int = 1,
    reader: Reader = DECODER,
) -> tuple[State, Samples]:
    """The first token of `n` continuations of every prompt. `key` may be the keys of the rows
    [P * n] instead."""
    logits_PV, caches = reader.prefill(params, cfg, prompts_PT, positions_PT, length, at_once)
    P, V = logits_PV.shape
    occurs_PT = jnp.where(positions_PT >= 0, prompts_PT, V)
    seen_PV = jnp.zeros((P, V), bool).at[jnp.arange(P)[:, None], occurs_PT].set(True, mode="drop")
    logits_BV, seen_BV, starts_B, caches = jax.tree.map(
        lambda x: jnp.repeat(x, n, axis=0), (logits_PV, seen_PV, positions_PT.max(1) + 1, caches)
    )
    B = P * n
    keys_B = key if key.ndim else jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(B))
    live_B, zeros_B = jnp.ones(B, bool), jnp.zeros(B, jnp.int32)
    state = State(jnp.int32(0), zeros_B, live_B, starts_B, keys_B, seen_BV, caches)
    return draw(state, logits_BV, sampler, top)


@functools.partial(
    jax.jit, static_argnames=("cfg", "size", "top", "reader"), donate_argnames="state"
)
def advance(
    params: dict,
    cfg: ModelConfig,
    state: State,
    sampler: Sampler,
    count: jax.Array,
    size: int,
    top: int,
    reader: Reader = DECODER,
) -> tuple[State, Samples]:
    """`count` more tokens, at most `size`, in every live row."""

    def more(carry):
        done, state, _ = carry
        return (done < count) & state.live_B.any()

    def body(carry):
        done, state, drawn = carry
        positions_B = state.starts_B + state.step - 1
        logits_B1V, caches = reader.decode(
            params, cfg, state.tokens_B[:, None], positions_B[:, None], state.caches
        )
        state, one = draw(state.replace(caches=caches), logits_B1V[:, 0], sampler, top)

        def put(every, x):
            if x.ndim == 1:  # lengths
                return every + x
            return jax.lax.dynamic_update_slice_in_dim(every, x, done, axis=1)

        return done + 1, state, jax.tree.map(put, drawn, one)

    start = (jnp.int32(0), state, _empty(len(state.tokens_B), size, top))
    _, state, drawn = jax.lax.while_loop(more, body, start)
    return state, drawn


def _empty(B: int, N: int, M: int) -> Samples:
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    whole = functools.partial(jnp.zeros, dtype=jnp.int32)
    return Samples(whole((B, N)), zeros((B, N)), whole(B), whole((B, N, M)), zeros((B, N, M)))


def draw(state: State, logits_BV: jax.Array, sampler: Sampler, top: int) -> tuple[State, Samples]:
    """One more token in every live row."""
    logits_BV = samplers.meaningful(logits_BV, sampler)
    keys_B = jax.vmap(jax.random.fold_in, (0, None))(state.keys_B, state.step)
    tokens_B = samplers.draw(keys_B, logits_BV, sampler, state.seen_BV)
    logprobs_BV = jax.nn.log_softmax(logits_BV)
    logprobs_B1 = jnp.take_along_axis(logprobs_BV, tokens_B[:, None], axis=1)
    top_BM, top_tokens_BM = jax.lax.top_k(logprobs_BV, top)
    live_B = state.live_B
    alive = lambda x: jnp.where(live_B.reshape(-1, *[1] * (x.ndim - 1)), x, 0)  # noqa: E731
    drawn = Samples(
        tokens_BN=alive(tokens_B[:, None]),
        logprobs_BN=alive(logprobs_B1),
        lengths_B=live_B.astype(jnp.int32),
        top_tokens_BNM=alive(top_tokens_BM[:, None]),
        top_logprobs_BNM=alive(top_BM[:, None]),
    )
    state = state.replace(
        step=state.step + 1,
        tokens_B=tokens_B,
        live_B=live_B & ~(tokens_B[:, None] == sampler.stop).any(1),
        seen_BV=samplers.mark(state.seen_BV, tokens_B),
    )
    return state, drawn


GoesOn = Callable[[Samples], np.ndarray]
"""Returns whether each row [B] continues after these tokens, for stop criteria that need text."""


def stream(
    params: dict,
    cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    *,
    n: int = 1,
    seed: int = 0,
    top: int = 0,
    chunk: int = CHUNK,
    goes_on: GoesOn | None = None,
    reader: Reader = DECODER,
) -> Iterator[Samples]:
    """The result of `sample` in pieces, as numpy arrays: one token, then `chunk` at a time."""
    check(cfg, prompts, n_tokens, sampler, n, top, reader.bounded)
    params, sampler = reader.prepare(params, cfg), samplers.as_arrays(sampler)
    prompts_PT, positions_PT, length = pad(cfg, prompts, n_tokens, reader.bounded)
    key, read = jax.random.key(seed), (prompts_PT, positions_PT)
    state, drawn = begin(params, cfg, *read, key, sampler, n, length, top, reader=reader)
    left, taken = n_tokens, 1
    while True:
        drawn = jax.tree.map(np.asarray, drawn)
        yield jax.tree.map(lambda x: x if x.ndim == 1 else x[:, :taken], drawn)  # noqa: B023
        left -= taken
        if goes_on is not None:
            state = state.replace(live_B=state.live_B & goes_on(drawn))
        if not left or not np.asarray(state.live_B).any():
            return
        taken = min(left, chunk)
        size = -(-chunk // CHUNK) * CHUNK
        state, drawn = advance(params, cfg, state, sampler, jnp.int32(taken), size, top, reader)


def sample(
    params: dict,
    cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    *,
    n: int = 1,
    seed: int = 0,
    top: int = 0,
    reader: Reader = DECODER,
) -> Samples:
    """`n` continuations of each prompt by up to `n_tokens` tokens, as numpy arrays.

    They include the `top` most likely tokens of every step. Raises ValueError, naming the argument,
    its value and what would be valid.
    """
    how = dict(n=n, seed=seed, top=top, reader=reader)
    pieces = stream(params, cfg, prompts, n_tokens, sampler, **how)
    return join(pieces, n_tokens)


def join(pieces: Iterable[Samples], n_tokens: int) -> Samples:
    """Joins the pieces of a stream: each row takes from each piece the tokens that it drew."""
    pieces = list(pieces)
    lengths_B = sum(piece.lengths_B for piece in pieces)
    drawn = [np.arange(p.tokens_BN.shape[1]) < p.lengths_B[:, None] for p in pieces]
    drawn_BT, filled_BN = np.concatenate(drawn, axis=1), np.arange(n_tokens) < lengths_B[:, None]

    def joined(*arrays):
        if arrays[0].ndim == 1:
            return lengths_B
        all_BT = np.concatenate(arrays, axis=1)
        whole_BN = np.zeros_like(all_BT, shape=(len(all_BT), n_tokens, *all_BT.shape[2:]))
        whole_BN[filled_BN] = all_BT[drawn_BT]  # both are ordered by row, then by time
        return whole_BN

    return jax.tree.map(joined, *pieces)


def pad(
    cfg: Any, prompts: Sequence[Sequence[int]], n_tokens: int, bounded: bool = True
) -> tuple[np.ndarray, np.ndarray, int]:
    """Tokens [P, T], their positions [P, T], -1 for padding, and the length of the contexts."""
    # longrope depends on the length, so lengths are not padded.
    bucket = 1 if getattr(cfg, "rope_scaling", "none") == "longrope" else BUCKET
    most = cfg.context_length if bounded else math.inf
    lengths_P1 = np.array([[len(prompt)] for prompt in prompts])
    longest = int(lengths_P1.max())
    T = min(-(-longest // bucket) * bucket, most)
    prompts_PT = np.zeros((len(prompts), T), np.int32)
    for row, prompt in zip(prompts_PT, prompts, strict=True):
        row[: len(prompt)] = prompt
    time_T = np.arange(T, dtype=np.int32)
    length = min(-(-(longest + n_tokens) // bucket) * bucket, most)
    return prompts_PT, np.where(time_T < lengths_P1, time_T, np.int32(-1)), length


def check(
    cfg: Any,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    n: int = 1,
    top: int = 0,
    bounded: bool = True,
) -> None:
    """Raises ValueError, in one line, for a request that `sample` cannot serve."""
    if not len(prompts) or not all(len(prompt) for prompt in prompts):
        raise ValueError("prompt is empty; give it at least one token")
    longest = max(len(prompt) for prompt in prompts)
    size = f"model.context_length={cfg.context_length}"
    if bounded and longest >= cfg.context_length:
        raise ValueError(f"prompt has {longest} tokens; {size} leaves no room for more; shorten it")
    if n_tokens < 1:
        raise ValueError(f"tokens={n_tokens} must be at least 1")
    room = cfg.context_length - longest
    if bounded and n_tokens > room:
        raise ValueError(
            f"tokens={n_tokens} after a prompt of {longest} do not fit {size}; use 1 to {room}"
        )
    for token in (min(map(min, prompts)), max(map(max, prompts))):
        if not 0 <= token < cfg.vocab_size:
            raise ValueError(f"prompt holds token {token}; model.vocab_size={cfg.vocab_size}")
    bounds = {
        "temperature": (sampler.temperature, 0, math.inf),
        "top_k": (sampler.top_k, 0, math.inf),
        "top_p": (sampler.top_p, 1e-9, 1),
        "min_p": (sampler.min_p, 0, 1),
        "typical": (sampler.typical, 1e-9, 1),
        "repetition_penalty": (sampler.repetition_penalty, 1e-9, math.inf),
        "n": (n, 1, math.inf),
        "top": (top, 0, cfg.vocab_size),
    }
    for name, (value, low, high) in bounds.items():
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{name}={value} is out of range; use {low} to {high}")
