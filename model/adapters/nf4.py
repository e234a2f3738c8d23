"""NF4: a matrix in four bits a weight, with its scales in eight bits (double quantisation).

Dettmers et al. 2023 (QLoRA), section 3. A block of 64 weights has one scale, its largest absolute
value. The scales, minus their mean, are quantised in blocks of 256. Codes, scales and values are
those of bitsandbytes for the same matrix.
"""

import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.partitioning import constrain

BLOCK = 64  # weights of one scale
OUTER = 256  # scales of one scale of scales
# Quantiles of the normal distribution, Dettmers et al. 2023, appendix E.
TABLE = np.array(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)


def dynamic_table() -> np.ndarray:
    """The 256 values of the dynamic data type, sorted: Dettmers 2016, section 2.1. A code has a
    sign, an exponent in unary and a linear fraction in the bits that are left."""
    values = [0.0, 1.0]
    for exponent in range(7):
        edges = np.linspace(0.1, 1, 2**exponent + 1, dtype=np.float32)
        middles = 10.0 ** (exponent - 6) * ((edges[:-1] + edges[1:]) / 2).astype(np.float64)
        values += [*middles, *-middles]
    return np.sort(np.array(values)).astype(np.float32)


DYNAMIC = dynamic_table()


@flax.struct.dataclass
class NF4:
    """A matrix [I, O] in NF4, or L of them: then each array has a leading axis L. The codes belong
    to the transposed matrix, row by row, as in torch; of two weights in a byte, the first has the
    upper half."""

    codes: jax.Array  # uint8 [O, I/2]
    scales: jax.Array  # uint8 [O, I/64], codes of DYNAMIC
    outer: jax.Array  # float32 [N], one for every 256 scales
    offset: jax.Array  # float32 [], the mean of the scales

    def dense(self, dtype: jnp.dtype) -> jax.Array:
        """The matrices [..., I, O], computed in float32 and rounded to `dtype`."""
        *lead, rows, half = self.codes.shape
        pairs = jnp.stack([_values(self.codes >> 4), _values(self.codes & 15)], -1)
        blocks = pairs.reshape(*lead, rows, 2 * half // BLOCK, BLOCK)
        values = blocks * self._scales()[..., None]
        return values.reshape(*lead, rows, 2 * half).astype(dtype).swapaxes(-1, -2)

    def gathered(self, fan_in: str | None, outputs: str | None) -> "NF4":
        """One matrix, sharded by these logical axes and whole along all others."""
        codes = constrain(self.codes, outputs, fan_in)
        return self.replace(codes=codes, scales=constrain(self.scales, None, None))

    def _scales(self) -> jax.Array:
        """The scale of each block [..., O, I/64]."""
        shape = self.scales.shape
        flat = jnp.asarray(DYNAMIC)[self.scales].reshape(*shape[:-2], -1)
        count, blocks = flat.shape[-1], self.outer.shape[-1]
        padding = [(0, 0)] * (flat.ndim - 1) + [(0, blocks * OUTER - count)]
        flat = jnp.pad(flat, padding).reshape(*shape[:-2], blocks, OUTER)
        flat = _rounded(flat * self.outer[..., None]).reshape(*shape[:-2], -1)[..., :count]
        return (flat + self.offset[..., None]).reshape(shape)


def _values(codes: jax.Array) -> jax.Array:
    """TABLE[codes], float32, by a tree of selections: TPUs look up single elements slowly."""
    values = [jnp.float32(value) for value in TABLE]
    for bit in range(4):
        chosen = (codes >> bit) & 1 == 1
        values = [jnp.where(chosen, b, a) for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _rounded(x: jax.Array) -> jax.Array:
    """A finite product, which no compiler fuses with the addition that follows: that would round
    once instead of twice. XLA removes barriers and reduce_precision before it fuses."""
    return jnp.where(jnp.abs(x) < jnp.inf, x, jnp.nan)


def quantised(kernel: np.ndarray, offset: np.ndarray | None = None) -> NF4:
    """A matrix [I, O], or L of them [L, I, O], in NF4, computed on the host. `offset`: what to
    subtract from the scales, [] or [L]; None: their mean. ValueError unless 64 divides I."""
    if kernel.ndim == 3:
        offsets = [None] * len(kernel) if offset is None else offset
        layers = [quantised(*pair) for pair in zip(kernel, offsets, strict=True)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
    if kernel.shape[0] % BLOCK:
        raise ValueError(f"NF4 needs inputs in multiples of {BLOCK}, not {kernel.shape[0]}")
    rows_OI = np.ascontiguousarray(kernel.T, dtype=np.float32)
    codes, scales = nearest(rows_OI.reshape(-1, BLOCK), TABLE)
    offset = np.float32(scales.mean(dtype=np.float64)) if offset is None else np.float32(offset)
    padded = np.zeros(math.ceil(len(scales) / OUTER) * OUTER, np.float32)
    padded[: len(scales)] = scales - offset
    outer_codes, outer = nearest(padded.reshape(-1, OUTER), DYNAMIC)
    pairs = codes.reshape(len(rows_OI), -1, 2)
    return NF4(
        codes=(pairs[..., 0] << 4) | pairs[..., 1],
        scales=outer_codes.reshape(-1)[: len(scales)].reshape(len(rows_OI), -1),
        outer=outer,
        offset=np.asarray(offset),
    )


def nearest(blocks: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(codes of the nearest values of a sorted table, largest absolute value of each row)."""
    scales = np.abs(blocks).max(1)
    inverse = np.float32(1) / np.maximum(scales, np.float32(1e-38))
    bounds = (table[:-1] + table[1:]) / np.float32(2)
    scaled = np.clip(blocks * inverse[:, None], -1, 1)
    return np.searchsorted(bounds, scaled).astype(np.uint8), scales


def shapes(shape: tuple[int, ...]) -> NF4:
    """What `quantised` gives for a kernel of this shape, without its arrays."""
    *lead, fan_in, rows = shape
    outer = math.ceil(rows * (fan_in // BLOCK) / OUTER)
    make = lambda dtype, *shape: jax.ShapeDtypeStruct((*lead, *shape), dtype)  # noqa: E731
    return NF4(
        make(jnp.uint8, rows, fan_in // 2),
        make(jnp.uint8, rows, fan_in // BLOCK),
        make(jnp.float32, outer),
        make(jnp.float32),
    )


def axes(lead: tuple[str, ...], fan_in: str, rows: str) -> dict[str, tuple[str, ...]]:
    """Logical axes of each array for a kernel with the axes (*lead, fan_in, rows). The scales are
    split along the outputs, because few blocks lie along the inputs."""
    along = "embed" if "embed" in (fan_in, rows) else "vector"
    return {
        "codes": (*lead, rows, fan_in),
        "scales": (*lead, along, "vector"),
        "outer": (*lead, "vector"),
        "offset": lead,
    }
