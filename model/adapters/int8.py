"""A matrix in eight bits a weight, with one scale for each output (absmax).

Dettmers et al. 2022 (LLM.int8), section 2, without outliers. Codes and values are those of
bitsandbytes.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.partitioning import constrain

STEP = np.float32(1 / 127)


@flax.struct.dataclass
class Int8:
    """A matrix [I, O] in int8, or L of them: then each array has a leading axis L."""

    codes: jax.Array  # int8 [I, O]
    scales: jax.Array  # float32 [O], the largest absolute value of each output's weights

    def dense(self, dtype: jnp.dtype) -> jax.Array:
        """The matrices [..., I, O], computed in float32 and rounded to `dtype`."""
        values = self.codes.astype(jnp.float32) * self.scales[..., None, :]
        return (values * STEP).astype(dtype)

    def gathered(self, fan_in: str | None, outputs: str | None) -> "Int8":
        """One matrix, sharded by these logical axes and whole along all others."""
        codes = constrain(self.codes, fan_in, outputs)
        return self.replace(codes=codes, scales=constrain(self.scales, outputs))


def quantised(kernel: np.ndarray) -> Int8:
    """A matrix [I, O], or L of them [L, I, O], in int8, computed on the host."""
    kernel = np.asarray(kernel, np.float32)
    scales = np.abs(kernel).max(-2)
    factor = np.float32(1) / np.where(scales == 0, np.float32(1), scales) * np.float32(127)
    return Int8(np.rint(kernel * factor[..., None, :]).astype(np.int8), scales)


def shapes(shape: tuple[int, ...]) -> Int8:
    """What `quantised` gives for a kernel of this shape, without its arrays."""
    *lead, _, outputs = shape
    scales = jax.ShapeDtypeStruct((*lead, outputs), jnp.float32)
    return Int8(jax.ShapeDtypeStruct(shape, jnp.int8), scales)


def axes(lead: tuple[str, ...], fan_in: str, outputs: str) -> dict[str, tuple[str, ...]]:
    """Logical axes of each array for a kernel with the axes (*lead, fan_in, outputs)."""
    return {"codes": (*lead, fan_in, outputs), "scales": (*lead, outputs)}
