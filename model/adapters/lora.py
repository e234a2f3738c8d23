"""LoRA: a small trained change A B beside a frozen matrix W. A Linear that finds these parameters
beside its kernel adds the change to its output; W + A B never exists as a whole.

Hu et al. 2022, section 4.1: y = x W + (alpha / r) x A B, with A [I, r] and B [r, O].
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

A, B, MAGNITUDE, DROPOUT = "lora_a", "lora_b", "lora_magnitude", "lora_dropout"
LEAVES = (A, B, MAGNITUDE, DROPOUT)
"""The names beside `kernel`. B is here times alpha / r. The dropout is a pair (key, rate), which
only a training step adds."""


def added(x: jax.Array, lora: Mapping, dtype: jnp.dtype) -> jax.Array:
    """x A B [..., O] as `dtype`, with dropout on x if there is any."""
    if DROPOUT in lora:
        x = dropped(x, *lora[DROPOUT])
    x = jnp.matmul(x, lora[A].astype(x.dtype))
    return jnp.matmul(x, lora[B].astype(x.dtype), preferred_element_type=dtype)


def dropped(x: jax.Array, key: jax.Array, rate: jax.Array) -> jax.Array:
    """x with each element 0 with probability `rate`, the others divided by 1 - rate."""
    kept = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate).astype(x.dtype), 0)


def rescaling(lora: Mapping, norm_O: jax.Array) -> jax.Array:
    """DoRA's factor of each output [..., O], m / ‖W + A B‖, float32: Liu et al. 2024, eq. 5. No
    gradient goes through the norm (section 4.3)."""
    return lora[MAGNITUDE].astype(jnp.float32) / jax.lax.stop_gradient(norm_O)


def column_norms(kernel_IO: jax.Array, lora: Mapping) -> jax.Array:
    """The norms of the columns of W + A B [..., O], float32."""
    return jnp.sqrt(jnp.square(changed(kernel_IO, lora)).sum(-2))


def changed(kernel_IO: jax.Array, lora: Mapping) -> jax.Array:
    """W + A B [..., I, O], float32, without DoRA's factor."""
    a, b = (lora[name].astype(jnp.float32) for name in (A, B))
    product = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return kernel_IO.astype(jnp.float32) + product


def merged(kernel_IO: np.ndarray, lora: Mapping) -> np.ndarray:
    """The matrix [..., I, O], float32, whose product is that of W with these parameters; computed
    on the host, because accelerators round the inputs of products."""
    kernel_IO, a, b = (np.asarray(x, np.float32) for x in (kernel_IO, lora[A], lora[B]))
    whole = kernel_IO + a @ b
    if MAGNITUDE not in lora:
        return whole
    norm_O = np.sqrt(np.square(whole).sum(-2))
    return whole * (np.asarray(lora[MAGNITUDE], np.float32) / norm_O)[..., None, :]
