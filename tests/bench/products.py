"""Multiplies square matrices: the cores' best rate, of which a model's share is its MFU.

JAX_PLATFORMS=cpu python -m tests.bench.products S1 5
"""

import functools

import jax
import jax.numpy as jnp

from tests.bench import contestant
from tests.bench.shapes import Shape

SIDE = 512  # large enough for the best rate, small enough for the cache


@functools.partial(jax.jit, static_argnums=1)
def chain(x: jax.Array, count: int) -> jax.Array:
    """`count` products of SIDE x SIDE in float32, one after the other."""
    return jax.lax.fori_loop(0, count, lambda i, y: (x @ y) / SIDE, x)


def prepare(shape: Shape) -> tuple[contestant.Advance, None]:
    """As many products as have the model FLOPs of a contestant's call."""
    count = max(1, round(shape.steps * shape.flops / (2 * SIDE**3)))
    x = jnp.ones((SIDE, SIDE))
    return lambda: chain(x, count).block_until_ready(), None


if __name__ == "__main__":
    contestant.main(prepare)
