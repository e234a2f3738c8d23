"""Multiplies square matrices. The rate is the peak to which a model's MFU is relative.

JAX_PLATFORMS=cpu python -m tests.bench.race.products S1 5
"""

import functools

import jax
import jax.numpy as jnp

from tests.bench.race import contestant
from tests.bench.race.shapes import Shape

SIDE = 512  # large enough for the best rate, small enough for the cache


@functools.partial(jax.jit, static_argnums=1)
def chain(x: jax.Array, count: int) -> jax.Array:
    """`count` successive products of SIDE × SIDE matrices in float32."""
    return jax.lax.fori_loop(0, count, lambda i, y: (x @ y) / SIDE, x)


def prepare(shape: Shape) -> tuple[contestant.Advance, None]:
    """As many products as have the FLOPs of one call of a model."""
    count = max(1, round(shape.steps * shape.flops / (2 * SIDE**3)))
    x = jnp.ones((SIDE, SIDE))
    return lambda: chain(x, count).block_until_ready(), None


if __name__ == "__main__":
    contestant.main(prepare)
