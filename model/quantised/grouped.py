"""A matrix in 2 to 6 bits a weight, with one scale for each group of inputs of an output (absmax).

The values of b bits are -m/m … m/m times the scale, m = 2^(b-1) - 1: symmetric, so 2 bits have
three values. Scales are float16, as in llama.cpp's Q4_0 and Q8_0. Groups along the inputs are those
of Dettmers & Zettlemoyer 2022 (arXiv:2212.09720), section 2; the last group may be shorter.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.partitioning import constrain

PER_BYTE = {2: 4, 3: 2, 4: 2, 5: 1, 6: 1}  # codes in a byte of memory


@flax.struct.dataclass
class Grouped:
    """A matrix [I, O], or L of them: then each array has a leading axis L."""

    codes: jax.Array  # uint8 [I / codes in a byte, O]: code + m; the first input in the low bits
    scales: jax.Array  # float16 [ceil(I / group), O], the largest absolute value of each group
    bits: int = flax.struct.field(pytree_node=False)
    group: int = flax.struct.field(pytree_node=False)
    inputs: int = flax.struct.field(pytree_node=False)

    def dense(self, dtype: jnp.dtype) -> jax.Array:
        """The matrices [..., I, O], computed in float32 and rounded to `dtype`."""
        per, m = PER_BYTE[self.bits], 2 ** (self.bits - 1) - 1
        shifts = jnp.arange(per, dtype=jnp.uint8) * (8 // per)
        parts = (self.codes[..., None, :] >> shifts[:, None]) & (2 ** (8 // per) - 1)
        *lead, rows, _, outputs = parts.shape
        codes = parts.reshape(*lead, rows * per, outputs)[..., : self.inputs, :]
        scales = jnp.repeat(self.scales.astype(jnp.float32), self.group, axis=-2)
        steps = scales[..., : self.inputs, :] * np.float32(1 / m)
        return ((codes.astype(jnp.float32) - m) * steps).astype(dtype)

    def gathered(self, fan_in: str | None, outputs: str | None) -> "Grouped":
        """One matrix, sharded by the outputs and whole along the inputs."""
        codes, scales = constrain(self.codes, None, outputs), constrain(self.scales, None, outputs)
        return self.replace(codes=codes, scales=scales)


def levels(bits: int) -> np.ndarray:
    """The values of all codes for a scale of 1, sorted: float32 [2 m + 1]."""
    m = 2 ** (bits - 1) - 1
    return (np.arange(-m, m + 1) * np.float32(1 / m)).astype(np.float32)


def scales_of(kernel: np.ndarray, group: int) -> np.ndarray:
    """The scales of a matrix [I, O]: float16 [ceil(I / group), O]."""
    inputs, outputs = kernel.shape
    padded = np.zeros((-(-inputs // group) * group, outputs), np.float32)
    padded[:inputs] = np.abs(kernel)
    return padded.reshape(-1, group, outputs).max(1).astype(np.float16)


def packed(codes: np.ndarray, scales: np.ndarray, bits: int, group: int) -> Grouped:
    """The struct of codes [I, O], indices into `levels`, and scales of `scales_of`."""
    inputs, outputs = codes.shape
    per = PER_BYTE[bits]
    whole = np.zeros((-(-inputs // per) * per, outputs), np.uint8)
    whole[:inputs] = codes
    shifts = np.arange(per, dtype=np.uint8) * (8 // per)
    parts = whole.reshape(-1, per, outputs) << shifts[:, None]
    return Grouped(np.bitwise_or.reduce(parts, axis=1), scales, bits, group, inputs)
