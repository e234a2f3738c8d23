"""This file stores an optimiser's moments in fewer bits than it computes them in.

A second moment with b2 = 0.999 moves by a thousandth of itself a step, less than bfloat16 can tell
from nothing: rounded to the nearest value it would stand still. So values are rounded up or down
at random, by how near they are to either: right on average (Gupta et al. 2015, section 3).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

MOMENTS = ("float32", "bfloat16")


class Stored(NamedTuple):
    """What `inner` remembers, its floats in bfloat16, and how many updates there were."""

    count: jax.Array
    inner: Any


def stored(inner: optax.GradientTransformation, moments: str) -> optax.GradientTransformation:
    """`inner`, computing in float32, with its floats stored as `moments` says."""
    if moments == "float32":
        return inner

    def init(params):
        return Stored(jnp.int32(0), jax.tree.map(_nearest, inner.init(params)))

    def update(grads, state, params):
        exact = jax.tree.map(lambda x: x.astype(jnp.float32) if _is_float(x) else x, state.inner)
        directions, exact = inner.update(grads, exact, params)
        key = jax.random.fold_in(jax.random.key(0), state.count)
        leaves, tree = jax.tree.flatten(exact)
        leaves = [
            rounded(x, jax.random.fold_in(key, i)) if _is_float(x) else x
            for i, x in enumerate(leaves)
        ]
        return directions, Stored(state.count + 1, jax.tree.unflatten(tree, leaves))

    return optax.GradientTransformation(init, update)


def rounded(x: jax.Array, key: jax.Array) -> jax.Array:
    """float32 to one of the two nearest bfloat16 values, with `x` as the mean of the draws."""
    # bfloat16 is the upper half of a float32: what the lower half carries over rounds up.
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = (lax.bitcast_convert_type(x, jnp.uint32) + noise) >> 16
    up_or_down = lax.bitcast_convert_type(bits.astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), up_or_down, x.astype(jnp.bfloat16))


def _nearest(x: jax.Array) -> jax.Array:
    return x.astype(jnp.bfloat16) if _is_float(x) else x


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
