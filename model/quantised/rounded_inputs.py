"""Int8 activations: the inputs of a matrix, rounded to eight bits, with one scale for each token.

Dettmers et al. 2022 (LLM.int8), section 2.1, without outliers: y = (x_int8 W_int8) s_x s_W, where
s_x is the token's largest absolute input over 127.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from model.adapters.int8 import STEP, Int8


@flax.struct.dataclass
class RoundedInputs:
    """A quantised matrix whose inputs are rounded too."""

    kernel: Any  # of a format in model/quantised/formats.py

    def dense(self, dtype: jnp.dtype) -> jax.Array:
        """The matrices [..., I, O] of the kernel."""
        return self.kernel.dense(dtype)

    def gathered(self, fan_in: str | None, outputs: str | None) -> "RoundedInputs":
        """One matrix, as the kernel's own `gathered` gives it."""
        return self.replace(kernel=self.kernel.gathered(fan_in, outputs))

    def product(self, x: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """x W [..., O] as `dtype`: an integer product where the kernel is int8, otherwise that of
        the rounded inputs and the dense matrix."""
        x = x.astype(jnp.float32)
        scale = jnp.abs(x).max(-1, keepdims=True) * STEP
        codes = jnp.round(x / jnp.where(scale == 0, 1, scale))
        if isinstance(self.kernel, Int8):
            whole = jnp.matmul(
                codes.astype(jnp.int8), self.kernel.codes, preferred_element_type=jnp.int32
            )
            return (whole.astype(jnp.float32) * scale * (self.kernel.scales * STEP)).astype(dtype)
        return jnp.matmul(codes * scale, self.kernel.dense(jnp.float32)).astype(dtype)
