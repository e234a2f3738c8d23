"""This file tells attention where a token stands: rotary positions (learned: see Embed)."""

import jax
import jax.numpy as jnp


def rotary(x_BTHC: jax.Array, positions_BT: jax.Array, theta: float) -> jax.Array:
    """Rotates the pairs (i, i + C/2) of each head by position * theta^(-2i/C), in float32.

    Su et al. 2021, section 3.2.2, in the half-split layout of LLaMA's published weights.
    """
    half = x_BTHC.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions_BT[..., None, None].astype(jnp.float32) * frequency  # [B, T, 1, C/2]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x1, x2 = jnp.split(x_BTHC.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
    return rotated.astype(x_BTHC.dtype)
