"""Computes the loss for a few tokens of each sequence at a time, to save memory.

The logits of a batch [B, T, V] are the largest array of a small model; here at most [B, chunk, V]
exist at once. The gradient of a chunk is computed right after its loss, so nothing is computed
twice, and only the gradient of the hidden states and the sum of the head's gradients are kept. A
chunk takes every (T / chunk)-th token, so that each device of a mesh holds a part of it regardless
of how the sequences are sharded.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from model.partitioning import mesh_axes, spec, summed, ways, whole_along
from train.parallel.sharding import parameter_specs
from train.rules import Rules

Sums = tuple[jax.Array, jax.Array]  # (training loss, nats), each summed over tokens


def require(chunk: int, length: int) -> None:
    """ValueError if sequences of `length` tokens cannot be split into chunks."""
    if chunk and length % chunk:
        valid = ", ".join(str(c) for c in range(1, length + 1) if length % c == 0)
        raise ValueError(
            f"train.loss_chunk={chunk} does not divide model.context_length={length}; "
            f"use 0, or one of {valid}"
        )


def split(x_BT: jax.Array, chunk: int) -> jax.Array:
    """[B, T, ...] to [T / chunk, B, chunk, ...]."""
    B, T = x_BT.shape[:2]
    return jnp.moveaxis(x_BT.reshape(B, chunk, T // chunk, *x_BT.shape[2:]), 2, 0)


def join(x_NBC: jax.Array) -> jax.Array:
    """The inverse of `split`."""
    N, B, chunk = x_NBC.shape[:3]
    return jnp.moveaxis(x_NBC, 0, 2).reshape(B, chunk * N, *x_NBC.shape[3:])


def each(score: Callable[..., jax.Array], chunk: int, *x_BT: jax.Array) -> jax.Array:
    """score(*x) [B, T], computed chunk by chunk, or all at once if `chunk` is 0."""
    if not chunk:
        return score(*x_BT)
    return join(jax.lax.map(lambda xs: score(*xs), tuple(split(x, chunk) for x in x_BT)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def sums(
    score: Callable[..., Sums],
    chunk: int,
    axes: Rules,
    head: Any,
    x_BTD: jax.Array,
    *batch_BT: jax.Array,
) -> Sums:
    """The sums over all chunks of score(head, x, *batch); only the first has a gradient.

    `head` holds the parameters that `score` reads, and `axes` the rules of their logical axes.
    `batch` has no gradient.
    """

    def add(total, chunks):
        return jax.tree.map(jnp.add, total, score(head, *chunks)), None

    chunks = tuple(split(x, chunk) for x in (x_BTD, *batch_BT))
    return jax.lax.scan(add, (jnp.float32(0), jnp.float32(0)), chunks)[0]


def _forward(score, chunk, axes, head, x_BTD, *batch_BT):
    """If the mesh splits the tokens evenly, the head is gathered once, and its gradient is summed
    over devices once, after the last chunk."""
    along, over = ways("seq"), mesh_axes("batch") + mesh_axes("seq")
    B, T = x_BTD.shape[:2]
    if ways("embed") == 1 or B % ways("batch") or T % along or chunk % along:
        return _gradients(score, chunk, head, x_BTD, *batch_BT)
    of_head, of_row = parameter_specs(head, axes), spec("batch", "seq")
    sharded = jax.tree.map(lambda of: _only(of, over), of_head)

    def of_device(head, x_BTD, *batch_BT):
        with whole_along(over):
            sums, (d_head, d_x, _) = _gradients(score, chunk // along, head, x_BTD, *batch_BT)
        d_head = jax.tree.map(lambda d, of: summed(d, of, over), d_head, sharded)
        return jax.lax.psum(sums, over), d_head, d_x

    whole = jax.tree.map(lambda _: PartitionSpec(), of_head)
    on_mesh = jax.shard_map(
        of_device,
        in_specs=(whole, of_row, *[of_row for _ in batch_BT]),
        out_specs=((PartitionSpec(), PartitionSpec()), sharded, of_row),
        axis_names=set(over),
        check_vma=False,
    )
    total, d_head, d_x = on_mesh(head, x_BTD, *batch_BT)
    return total, (d_head, d_x, len(batch_BT))


def _only(parts: PartitionSpec, names: tuple[str, ...]) -> PartitionSpec:
    """`parts` without mesh axes other than `names`."""
    kept = [(of,) if isinstance(of, str) else of or () for of in parts]
    return PartitionSpec(*[tuple(name for name in of if name in names) or None for of in kept])


def _gradients(score, chunk, head, x_BTD, *batch_BT):
    def add(carry, chunks):
        total, summed = carry
        x, *batch = chunks
        loss, pull_back, nats = jax.vjp(
            lambda head, x: score(head, x, *batch), head, x, has_aux=True
        )
        d_head, d_x = pull_back(jnp.ones_like(loss))
        # In float32, so that a sum over many chunks is as accurate as a single product.
        summed = jax.tree.map(lambda s, d: s + d.astype(jnp.float32), summed, d_head)
        return (jax.tree.map(jnp.add, total, (loss, nats)), summed), d_x

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), head)
    chunks = tuple(split(x, chunk) for x in (x_BTD, *batch_BT))
    start = (jnp.float32(0), jnp.float32(0)), zeros
    (total, summed), d_x = jax.lax.scan(add, start, chunks)
    d_head = jax.tree.map(lambda s, x: s.astype(x.dtype), summed, head)
    return total, (d_head, join(d_x), len(batch_BT))


def _backward(score, chunk, axes, saved, cotangents):
    d_head, d_x, constants = saved
    times = lambda d: (d * cotangents[0]).astype(d.dtype)  # noqa: E731
    return jax.tree.map(times, d_head), times(d_x), *[None] * constants


sums.defvjp(_forward, _backward)
