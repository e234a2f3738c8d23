"""Stores an optimiser's moments in fewer bits than it uses to compute them.

With b2 = 0.999, a second moment changes by about a thousandth of its value per step, which is less
than the spacing of bfloat16 values: rounded to the nearest value, it would never change. Stochastic
rounding is correct on average: it rounds up or down at random, with probabilities given by the
distances to the two nearest values (Gupta et al. 2015, section 3).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

MOMENTS = ("float32", "bfloat16")


class Stored(NamedTuple):
    """The state of `inner` with its floats in bfloat16, and the number of updates."""

    count: jax.Array
    inner: Any


def stored(inner: optax.GradientTransformation, moments: str) -> optax.GradientTransformation:
    """`inner`, computing in float32, with its floats stored in the dtype `moments`."""
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
    """Rounds float32 at random to one of the two nearest bfloat16 values; the mean is `x`."""
    # bfloat16 is the upper half of a float32. A carry from the lower half rounds up.
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = (lax.bitcast_convert_type(x, jnp.uint32) + noise) >> 16
    up_or_down = lax.bitcast_convert_type(bits.astype(jnp.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), up_or_down, x.astype(jnp.bfloat16))


def _nearest(x: jax.Array) -> jax.Array:
    return x.astype(jnp.bfloat16) if _is_float(x) else x


def _is_float(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
