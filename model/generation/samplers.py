"""Samplers: pure functions that modify the distribution, logits [B, V], before a token is drawn.

-inf marks tokens that cannot be drawn. `process` applies the functions in the order of
transformers' `generate`: repetition penalty, temperature, top-k, top-p, min-p, typical.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Sampler:
    """How a token is drawn. All fields are inputs of the program: no change recompiles it."""

    temperature: float = 1.0  # divides the logits; 0: greedy
    top_k: int = 0  # most likely tokens kept; 0: all
    top_p: float = 1.0  # total probability that the kept tokens must reach
    min_p: float = 0.0  # smallest probability kept, relative to the most likely token's
    typical: float = 1.0  # total probability that the kept, locally typical tokens must reach
    repetition_penalty: float = 1.0  # divides positive logits of tokens that occurred; 1: none
    vocab_size: int = 2**31 - 1  # higher token ids are padding and never drawn
    stop: tuple[int, ...] = ()  # tokens that end a row


STOPS = 4  # stop tokens are padded to a multiple of it, so that few programs are compiled


def as_arrays(sampler: Sampler) -> Sampler:
    """The sampler with arrays in place of numbers. Otherwise an int in place of a float recompiles
    the program.
    """
    stop = (*sampler.stop, *[-1] * (-len(sampler.stop) % STOPS)) or (-1,) * STOPS
    return Sampler(
        temperature=jnp.float32(sampler.temperature),
        top_k=jnp.int32(sampler.top_k),
        top_p=jnp.float32(sampler.top_p),
        min_p=jnp.float32(sampler.min_p),
        typical=jnp.float32(sampler.typical),
        repetition_penalty=jnp.float32(sampler.repetition_penalty),
        vocab_size=jnp.int32(sampler.vocab_size),
        stop=jnp.asarray(stop, jnp.int32),
    )


def repetition_penalty(logits_BV: jax.Array, seen_BV: jax.Array, penalty: jax.Array) -> jax.Array:
    """Divides the logits of tokens that occurred by the penalty; multiplies negative ones by it.

    Keskar et al. 2019 (CTRL), section 4.1, with the usual correction for negative logits.
    """
    punished_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(seen_BV, punished_BV, logits_BV)


def temperature(logits_BV: jax.Array, t: jax.Array) -> jax.Array:
    """logits / t; at t = 0 the limit, which keeps only the (first) largest."""
    largest_BV = jax.nn.one_hot(logits_BV.argmax(-1), logits_BV.shape[-1], dtype=bool)
    return jnp.where(
        t > 0, logits_BV / jnp.where(t > 0, t, 1), jnp.where(largest_BV, 0.0, -jnp.inf)
    )


def top_k(logits_BV: jax.Array, k: jax.Array) -> jax.Array:
    """Keeps the k largest and ties with the k-th; k = 0 keeps all. Fan et al. 2018."""
    V = logits_BV.shape[-1]
    sorted_BV = jnp.sort(logits_BV, axis=-1)
    least_B1 = jax.lax.dynamic_slice_in_dim(sorted_BV, V - jnp.clip(k, 1, V), 1, axis=-1)
    return jnp.where((logits_BV >= least_B1) | (k == 0), logits_BV, -jnp.inf)


def top_p(logits_BV: jax.Array, p: jax.Array) -> jax.Array:
    """Keeps the fewest tokens whose probability reaches p, at least one. Holtzman et al. 2020."""
    sorted_BV = -jnp.sort(-logits_BV, axis=-1)
    probability_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probability_BV, axis=-1) - probability_BV
    least_B1 = jnp.where(before_BV < p, sorted_BV, jnp.inf).min(-1, keepdims=True)
    return jnp.where((logits_BV >= least_B1) | (p >= 1), logits_BV, -jnp.inf)


def min_p(logits_BV: jax.Array, p: jax.Array) -> jax.Array:
    """Keeps tokens at least p times as likely as the most likely one. Nguyen et al. 2024."""
    below_BV = logits_BV - logits_BV.max(-1, keepdims=True)
    return jnp.where(below_BV >= jnp.log(p), logits_BV, -jnp.inf)


def typical(logits_BV: jax.Array, p: jax.Array) -> jax.Array:
    """Keeps the fewest tokens that reach probability p, ordered by the distance between their
    surprisal -log p and its mean, the entropy. Meister et al. 2022.
    """
    logprobs_BV = jax.nn.log_softmax(logits_BV, axis=-1)
    probability_BV = jnp.exp(logprobs_BV)
    possible_BV = probability_BV > 0
    entropy_B1 = -jnp.where(possible_BV, probability_BV * logprobs_BV, 0).sum(-1, keepdims=True)
    distance_BV = jnp.where(possible_BV, jnp.abs(-logprobs_BV - entropy_B1), jnp.inf)
    nearest_BV, sorted_BV = jax.lax.sort((distance_BV, probability_BV), dimension=-1, num_keys=1)
    before_BV = jnp.cumsum(sorted_BV, axis=-1) - sorted_BV
    farthest_B1 = jnp.where(before_BV < p, nearest_BV, -jnp.inf).max(-1, keepdims=True)
    return jnp.where((distance_BV <= farthest_B1) | (p >= 1), logits_BV, -jnp.inf)


CUTS: dict[str, tuple[Callable, Callable]] = {
    "top_k": (top_k, lambda k: k > 0),
    "top_p": (top_p, lambda p: p < 1),
    "min_p": (min_p, lambda p: p > 0),
    "typical": (typical, lambda p: p < 1),
}
"""{name: (function that removes tokens, whether a value enables it)}, in order of application."""


def process(logits_BV: jax.Array, sampler: Sampler, seen_BV: jax.Array) -> jax.Array:
    """Logits of the distribution to draw from; `seen` marks the tokens that occurred."""
    logits_BV = repetition_penalty(logits_BV, seen_BV, sampler.repetition_penalty)
    logits_BV = temperature(logits_BV, sampler.temperature)
    for name, (cut, on) in CUTS.items():
        # Most of these functions sort the vocabulary, so skip those that are not enabled.
        value = getattr(sampler, name)
        logits_BV = jax.lax.cond(on(value), cut, lambda x, _: x, logits_BV, value)
    return logits_BV


def draw(
    keys_B: jax.Array, logits_BV: jax.Array, sampler: Sampler, seen_BV: jax.Array
) -> jax.Array:
    """One token per row [B], each drawn with its own key."""

    def at_random():
        logits = process(logits_BV, sampler, seen_BV)
        return jax.vmap(jax.random.categorical)(keys_B, logits).astype(jnp.int32)

    def greedy():
        logits = repetition_penalty(logits_BV, seen_BV, sampler.repetition_penalty)
        return logits.argmax(-1).astype(jnp.int32)

    return jax.lax.cond(sampler.temperature > 0, at_random, greedy)


def draw_each(
    keys_B: jax.Array,
    logits_BV: jax.Array,
    sampler: Sampler,
    seen_BV: jax.Array,
    live_B: jax.Array,
) -> jax.Array:
    """`draw` with a sampler for each row: the fields that `process` reads are [B].

    A function of CUTS runs only if a row of `live_B` enables it. Rows that are not live get any
    token.
    """

    def at_random():
        logits = jax.vmap(temperature)(punished_BV, sampler.temperature)
        for name, (cut, on) in CUTS.items():
            one = lambda x_V, value, cut=cut: cut(x_V[None], value)[0]  # noqa: E731
            value_B = getattr(sampler, name)
            used = (on(value_B) & live_B).any()
            logits = jax.lax.cond(used, jax.vmap(one), lambda x, _: x, logits, value_B)
        return jax.vmap(jax.random.categorical)(keys_B, logits).astype(jnp.int32)

    penalty_B1 = sampler.repetition_penalty[:, None]
    punished_BV = repetition_penalty(logits_BV, seen_BV, penalty_B1)
    drawn = ((sampler.temperature > 0) & live_B).any()
    return jax.lax.cond(drawn, at_random, lambda: punished_BV.argmax(-1).astype(jnp.int32))


def meaningful(logits_BV: jax.Array, sampler: Sampler) -> jax.Array:
    """Logits with -inf for rows of the head that are padding of the vocabulary."""
    known_V = jnp.arange(logits_BV.shape[-1]) < sampler.vocab_size
    return jnp.where(known_V, logits_BV, -jnp.inf)


def mark(seen_BV: jax.Array, tokens_B: jax.Array) -> jax.Array:
    """`seen` with one more token per row marked."""
    return seen_BV.at[jnp.arange(len(tokens_B)), tokens_B].set(True)
