"""This file samples: it reads prompts in one pass, then decodes token by token with the cache.

`sample` is for people: lists of tokens in, numpy out, bad requests refused. Under it, `generate` is
the jitted program. What changes a distribution is a pure function of logits [B, V], applied in
`process`; -inf marks what can't be drawn.

    P prompts, T their padded length, N tokens to add, B = P * n rows, M most likely tokens shown
"""

import functools
import math
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.attention import Cache
from model.config import ModelConfig
from model.transformer import Decoder, empty_caches

BUCKET = 32  # prompts are padded to a multiple: lengths that share one share a compiled program


@flax.struct.dataclass
class Sampler:
    """How a token is drawn. These are inputs of the program: changing one compiles nothing."""

    temperature: float = 1.0  # divides the logits; 0: greedy
    top_k: int = 0  # most likely tokens kept; 0: all
    top_p: float = 1.0  # probability that the kept tokens must reach
    vocab_size: int = 2**31 - 1  # tokens from here on mean nothing and are never drawn
    stop: int = -1  # token that ends a row; -1: none


@flax.struct.dataclass
class Samples:
    """Rows [P * n], those of one prompt together. After a row's stop token all is 0.

    Log-probabilities, in nats, are the model's own: before temperature, top-k and top-p.
    """

    tokens_BN: jax.Array
    logprobs_BN: jax.Array
    lengths_B: jax.Array  # tokens drawn, the stop token among them
    top_tokens_BNM: jax.Array  # most likely first
    top_logprobs_BNM: jax.Array


def temperature(logits_BV: jax.Array, t: jax.Array) -> jax.Array:
    """logits / t; at t = 0 the limit, which leaves the (first) largest alone."""
    largest_BV = jax.nn.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1], dtype=bool)
    return jnp.where(
        t > 0, logits_BV / jnp.where(t > 0, t, 1), jnp.where(largest_BV, 0.0, -jnp.inf)
    )


def top_k(logits_BV: jax.Array, k: jax.Array) -> jax.Array:
    """Keeps the k largest and what equals the k-th; k = 0 keeps all. Fan et al. 2018."""
    V = logits_BV.shape[-1]
    sorted_BV = jnp.sort(logits_BV, axis=-1)
    least_B1 = jax.lax.dynamic_slice_in_dim(sorted_BV, V - jnp.clip(k, 1, V), 1, axis=-1)
    return jnp.where((logits_BV >= least_B1) | (k == 0), logits_BV, -jnp.inf)


def top_p(logits_BV: jax.Array, p: jax.Array) -> jax.Array:
    """Keeps the fewest tokens whose probability reaches p, one at least. Holtzman et al. 2020."""
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    least_B1 = jnp.where(before_BV < p, sorted_BV, jnp.inf).min(-1, keepdims=True)
    return jnp.where((logits_BV >= least_B1) | (p >= 1), logits_BV, -jnp.inf)


def process(logits_BV: jax.Array, sampler: Sampler) -> jax.Array:
    """Logits of the distribution that is drawn from."""
    logits_BV = temperature(logits_BV, sampler.temperature)
    # Each sorts the vocabulary: dear enough to skip.
    logits_BV = jax.lax.cond(
        sampler.top_k > 0, lambda x: top_k(x, sampler.top_k), lambda x: x, logits_BV
    )
    return jax.lax.cond(
        sampler.top_p < 1, lambda x: top_p(x, sampler.top_p), lambda x: x, logits_BV
    )


def prefill(
    params: dict, cfg: ModelConfig, prompts_PT: jax.Array, lengths_P: jax.Array, slots: int
) -> tuple[jax.Array, list[Cache]]:
    """Logits [P, V] after each prompt, and caches of `slots` tokens that hold the prompts.

    Padding stands at position -1, which no query sees and no cache keeps.
    """
    P, T = prompts_PT.shape
    time_T = jnp.arange(T)
    positions_PT = jnp.where(time_T < lengths_P[:, None], time_T, -1)
    x_PTD, caches = Decoder(cfg).apply(
        {"params": params}, prompts_PT, positions_PT, empty_caches(cfg, P, slots),
        method="prefill",
    )  # fmt: skip
    last_P1D = jnp.take_along_axis(x_PTD, lengths_P[:, None, None] - 1, axis=1)
    logits_P1V = Decoder(cfg).apply({"params": params}, last_P1D, method="logits")
    return logits_P1V[:, 0].astype(jnp.float32), caches


def decode(
    params: dict, cfg: ModelConfig, tokens_B: jax.Array, positions_B: jax.Array, caches: list[Cache]
) -> tuple[jax.Array, list[Cache]]:
    """Logits [B, V] after one more token a row, and the caches with it in."""
    logits_B1V, caches = Decoder(cfg).apply(
        {"params": params}, tokens_B[:, None], positions_B[:, None], caches, method="decode"
    )
    return logits_B1V[:, 0].astype(jnp.float32), caches


@functools.partial(jax.jit, static_argnames=("cfg", "n", "n_tokens", "top"))
def generate(
    params: dict,
    cfg: ModelConfig,
    prompts_PT: jax.Array,
    lengths_P: jax.Array,
    key: jax.Array,
    sampler: Sampler,
    n: int,
    n_tokens: int,
    top: int,
) -> Samples:
    """`n` continuations of every prompt, of at most `n_tokens` tokens.

    A row's randomness follows from the key, its number and the step: a larger n adds rows and a
    larger n_tokens adds tokens, neither changes those that were there.
    """
    logits_PV, caches = prefill(params, cfg, prompts_PT, lengths_P, prompts_PT.shape[1] + n_tokens)
    logits_BV, caches, lengths_B = jax.tree.map(
        lambda x: jnp.repeat(x, n, axis=0), (logits_PV, caches, lengths_P)
    )
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(lengths_B.size))
    state = (jnp.int32(0), jnp.ones(lengths_B.size, bool), _empty(lengths_B.size, n_tokens, top))
    state = _draw(state, logits_BV, keys_B, sampler)

    def more(carry):
        (step, live_B, _), _ = carry
        return (step < n_tokens) & live_B.any()

    def body(carry):
        state, caches = carry
        step, _, drawn = state
        last_B = drawn.tokens_BN[:, step - 1]
        logits_BV, caches = decode(params, cfg, last_B, lengths_B + step - 1, caches)
        return _draw(state, logits_BV, keys_B, sampler), caches

    (_, _, drawn), _ = jax.lax.while_loop(more, body, (state, caches))
    return drawn


def _empty(B: int, N: int, M: int) -> Samples:
    zeros = functools.partial(jnp.zeros, dtype=jnp.float32)
    whole = functools.partial(jnp.zeros, dtype=jnp.int32)
    return Samples(whole((B, N)), zeros((B, N)), whole(B), whole((B, N, M)), zeros((B, N, M)))


State = tuple[jax.Array, jax.Array, Samples]
"""The number of steps done, whether each row goes on [B], and what was drawn."""


def _draw(state: State, logits_BV: jax.Array, keys_B: jax.Array, sampler: Sampler) -> State:
    """One more token in every row that goes on."""
    step, live_B, drawn = state
    known_V = jnp.arange(logits_BV.shape[-1]) < sampler.vocab_size
    logits_BV = jnp.where(known_V, logits_BV, -jnp.inf)
    step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
    tokens_B = jax.vmap(jax.random.categorical)(step_keys_B, process(logits_BV, sampler))
    logprobs_BV = jax.nn.log_softmax(logits_BV)
    logprobs_B = jnp.take_along_axis(logprobs_BV, tokens_B[:, None], axis=1)[:, 0]
    top_BM, top_tokens_BM = jax.lax.top_k(logprobs_BV, drawn.top_tokens_BNM.shape[-1])
    live_B1 = live_B[:, None]
    drawn = Samples(
        drawn.tokens_BN.at[:, step].set(jnp.where(live_B, tokens_B, 0)),
        drawn.logprobs_BN.at[:, step].set(jnp.where(live_B, logprobs_B, 0)),
        drawn.lengths_B + live_B,
        drawn.top_tokens_BNM.at[:, step].set(jnp.where(live_B1, top_tokens_BM, 0)),
        drawn.top_logprobs_BNM.at[:, step].set(jnp.where(live_B1, top_BM, 0)),
    )
    return step + 1, live_B & (tokens_B != sampler.stop), drawn


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
) -> Samples:
    """`n` continuations of each prompt by up to `n_tokens` tokens, as numpy arrays.

    `top` most likely tokens of every step come along. Raises ValueError, naming the argument, its
    value and what would be valid.
    """
    check(cfg, prompts, n_tokens, sampler, n, top)
    lengths_P = np.array([len(prompt) for prompt in prompts], np.int32)
    T = min(-(-int(lengths_P.max()) // BUCKET) * BUCKET, cfg.context_length)
    prompts_PT = np.zeros((len(prompts), T), np.int32)
    for row, prompt in zip(prompts_PT, prompts, strict=True):
        row[: len(prompt)] = prompt
    # Weak Python numbers would compile anew where an int follows a float.
    sampler = Sampler(
        jnp.float32(sampler.temperature),
        jnp.int32(sampler.top_k),
        jnp.float32(sampler.top_p),
        jnp.int32(sampler.vocab_size),
        jnp.int32(sampler.stop),
    )
    key = jax.random.key(seed)
    drawn = generate(params, cfg, prompts_PT, lengths_P, key, sampler, n, n_tokens, top)
    return jax.tree.map(np.asarray, drawn)


def check(
    cfg: ModelConfig,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    sampler: Sampler,
    n: int,
    top: int,
) -> None:
    """ValueError for what `sample` can't do, in one line."""
    if not len(prompts) or not all(len(prompt) for prompt in prompts):
        raise ValueError("prompt is empty; give it at least one token")
    longest = max(len(prompt) for prompt in prompts)
    size = f"model.context_length={cfg.context_length}"
    if longest >= cfg.context_length:
        raise ValueError(f"prompt has {longest} tokens and {size} no room for more; shorten it")
    room = cfg.context_length - longest
    if not 1 <= n_tokens <= room:
        raise ValueError(f"tokens={n_tokens} and a prompt of {longest} in {size}; use 1 to {room}")
    for token in (min(map(min, prompts)), max(map(max, prompts))):
        if not 0 <= token < cfg.vocab_size:
            raise ValueError(f"prompt holds token {token}; model.vocab_size={cfg.vocab_size}")
    bounds = {
        "temperature": (sampler.temperature, 0, math.inf),
        "top_k": (sampler.top_k, 0, math.inf),
        "top_p": (sampler.top_p, 1e-9, 1),
        "n": (n, 1, math.inf),
        "top": (top, 0, cfg.vocab_size),
    }
    for name, (value, low, high) in bounds.items():
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{name}={value} is out of range; use {low} to {high}")
