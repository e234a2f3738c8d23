"""Decoding of many requests at once, each with its own sampler and length.

A cache has B slots for contexts of equal length. `admit` reads the prompt of a request into one
slot while the others keep what they hold; `advance` draws one more token in every live slot. A
request draws the same tokens whatever the other slots hold, because every row of a program is
computed from that row alone.

    B slots, T padded length of a prompt, V vocabulary, M most likely tokens shown
"""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from model.generation import samplers
from model.generation.sample import Reader
from model.generation.samplers import Sampler


@flax.struct.dataclass
class Slots:
    """The state of all slots; that of a slot without a request has no meaning."""

    tokens_B: jax.Array  # the last token of each context, not yet in the caches
    positions_B: jax.Array  # the position of that token
    steps_B: jax.Array  # tokens drawn so far
    seeds_B: jax.Array
    rows_B: jax.Array  # the number of the sample among those of its seed
    sampler: Sampler  # fields [B]; `vocab_size` is one number; `stop` is left to the caller
    seen_BV: jax.Array  # tokens that occurred, in the prompt or since
    caches: Any


@flax.struct.dataclass
class Drawn:
    """One token of each slot. Log-probabilities, in nats, are the model's own."""

    tokens_B: jax.Array
    logprobs_B: jax.Array
    top_tokens_BM: jax.Array  # most likely first
    top_logprobs_BM: jax.Array


@functools.partial(jax.jit, static_argnames=("cfg", "slots", "length", "reader"))
def empty(params: Any, cfg: Any, slots: int, length: int, vocab_size: int, reader: Reader) -> Slots:
    """Slots for contexts of `length` tokens; token ids from `vocab_size` on are never drawn."""
    zeros_B1 = jnp.zeros((slots, 1), jnp.int32)
    read = lambda params: reader.prefill(params, cfg, zeros_B1, zeros_B1 - 1, length)  # noqa: E731
    shapes = jax.eval_shape(read, params)
    logits_BV, caches = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    zeros_B, sampler = zeros_B1[:, 0], _array_fields(Sampler(vocab_size=vocab_size))
    everywhere = jax.tree.map(lambda x: jnp.broadcast_to(x, slots), sampler)
    return Slots(
        tokens_B=zeros_B,
        positions_B=zeros_B,
        steps_B=zeros_B,
        seeds_B=zeros_B.astype(jnp.uint32),
        rows_B=zeros_B,
        sampler=everywhere.replace(vocab_size=sampler.vocab_size),
        seen_BV=jnp.zeros(logits_BV.shape, bool),
        caches=caches,
    )


def _array_fields(sampler: Sampler) -> Sampler:
    return samplers.as_arrays(sampler).replace(stop=())


def request(
    prompt: list[int], bucket: int, sampler: Sampler, seed: int, row: int
) -> dict[str, Any]:
    """The arguments of `admit` that describe a request; its prompt is padded to `bucket` tokens.

    The last token of the prompt is read by the first `advance`, with those of the other slots.
    """
    before = prompt[:-1]
    tokens_1T = jnp.array([[*before, *[0] * (bucket - len(before))]], jnp.int32)
    time_T = jnp.arange(bucket)
    return dict(
        tokens_1T=tokens_1T,
        positions_1T=jnp.where(time_T < len(before), time_T, -1)[None],
        last=jnp.int32(prompt[-1]),
        sampler=_array_fields(sampler),
        seed=jnp.uint32(seed % 2**32),
        row=jnp.int32(row),
    )


@functools.partial(jax.jit, static_argnames=("cfg", "length", "reader"), donate_argnames="slots")
def admit(
    params: Any,
    cfg: Any,
    slots: Slots,
    slot: jax.Array,
    tokens_1T: jax.Array,
    positions_1T: jax.Array,
    last: jax.Array,
    sampler: Sampler,
    seed: jax.Array,
    row: jax.Array,
    length: int,
    reader: Reader,
) -> Slots:
    """`slots` with a new request in `slot`: all but the last token of its prompt are read."""
    _, cache = reader.prefill(params, cfg, tokens_1T, positions_1T, length)
    V = slots.seen_BV.shape[1]
    occurs_T = jnp.where(positions_1T[0] >= 0, tokens_1T[0], V)
    seen_V = jnp.zeros(V, bool).at[occurs_T].set(True, mode="drop").at[last].set(True)

    def put(every, one):
        return jax.tree.map(lambda x, y: x.at[slot].set(y) if x.ndim else x, every, one)

    return Slots(
        tokens_B=put(slots.tokens_B, last),
        positions_B=put(slots.positions_B, positions_1T.max() + 1),
        steps_B=put(slots.steps_B, 0),
        seeds_B=put(slots.seeds_B, seed),
        rows_B=put(slots.rows_B, row),
        sampler=put(slots.sampler, sampler),
        seen_BV=put(slots.seen_BV, seen_V),
        caches=put(slots.caches, jax.tree.map(lambda x: x[0], cache)),
    )


@functools.partial(jax.jit, static_argnames=("cfg", "top", "reader"), donate_argnames="slots")
def advance(
    params: Any, cfg: Any, slots: Slots, live_B: jax.Array, top: int, reader: Reader
) -> tuple[Slots, Drawn]:
    """One more token in every slot of `live_B`, with its `top` most likely alternatives."""
    positions_B = jnp.where(live_B, slots.positions_B, -1)
    logits_B1V, caches = reader.decode(
        params, cfg, slots.tokens_B[:, None], positions_B[:, None], slots.caches
    )
    logits_BV = samplers.meaningful(logits_B1V[:, 0], slots.sampler)
    keys_B = jax.vmap(_key)(slots.seeds_B, slots.rows_B, slots.steps_B)
    tokens_B = samplers.draw_each(keys_B, logits_BV, slots.sampler, slots.seen_BV, live_B)
    logprobs_BV = jax.nn.log_softmax(logits_BV)
    logprobs_B1 = jnp.take_along_axis(logprobs_BV, tokens_B[:, None], axis=1)
    top_logprobs_BM, top_tokens_BM = jax.lax.top_k(logprobs_BV, top)
    slots = slots.replace(
        tokens_B=tokens_B,
        positions_B=slots.positions_B + live_B,
        steps_B=slots.steps_B + live_B,
        seen_BV=samplers.mark(slots.seen_BV, tokens_B),
        caches=caches,
    )
    return slots, Drawn(tokens_B, logprobs_B1[:, 0], top_tokens_BM, top_logprobs_BM)


def _key(seed: jax.Array, row: jax.Array, step: jax.Array) -> jax.Array:
    """The key of a draw: that of `sample` with this seed."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), step)
