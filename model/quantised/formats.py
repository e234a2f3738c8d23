"""The formats of post-training quantisation: the table FORMATS, and how a kernel is rounded.

A format has a grid: values `levels` [K] that are multiplied by a scale for each weight. Rounding to
nearest and GPTQ (`model/quantised/gptq.py`) choose a level for each weight; `assembled` stores the
choice. The formats int8 and nf4 are those of `model/adapters`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from model.adapters import int8, nf4
from model.adapters.int8 import Int8
from model.adapters.nf4 import NF4
from model.quantised import grouped


@flax.struct.dataclass
class Cut:
    """The first `inputs` rows of an NF4 matrix, whose own rows are a multiple of its block."""

    whole: NF4
    inputs: int = flax.struct.field(pytree_node=False)

    def dense(self, dtype: jnp.dtype) -> jax.Array:
        """The matrices [..., I, O]."""
        return self.whole.dense(dtype)[..., : self.inputs, :]

    def gathered(self, fan_in: str | None, outputs: str | None) -> "Cut":
        """One matrix, as NF4's own `gathered` gives it."""
        return self.replace(whole=self.whole.gathered(fan_in, outputs))


@dataclass(frozen=True)
class Grid:
    """What a kernel [I, O] may become: levels [K], sorted, times scales [I, O], both float32.
    `assembled(codes)` stores codes uint8 [I, O], indices into the levels."""

    levels: np.ndarray
    scales: np.ndarray
    assembled: Callable[[np.ndarray], Any]

    def codes(self, kernel: np.ndarray) -> np.ndarray:
        """The nearest level of each weight, uint8 [I, O]."""
        return nearest(self.levels, kernel, self.scales)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """The weights that codes stand for, float32 [I, O]."""
        return self.levels[codes] * self.scales


def nearest(levels: np.ndarray, weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Indices uint8 of the levels that, times the scales, are nearest to the weights."""
    bounds = (levels[:-1] + levels[1:]) / 2
    return np.searchsorted(bounds, weights / np.where(scales == 0, 1, scales)).astype(np.uint8)


def _int8(kernel: np.ndarray, group: int) -> Grid:
    """One scale for each output."""
    scales = np.abs(kernel).max(0)
    levels = (np.arange(-127, 128) * int8.STEP).astype(np.float32)
    store = lambda codes: Int8((codes.astype(np.int16) - 127).astype(np.int8), scales)  # noqa: E731
    return Grid(levels, np.broadcast_to(scales, kernel.shape), store)


def _int(bits: int) -> Callable[[np.ndarray, int], Grid]:
    """One scale for each group of inputs of an output."""

    def grid(kernel: np.ndarray, group: int) -> Grid:
        scales = grouped.scales_of(kernel, group)
        each = np.repeat(scales.astype(np.float32), group, axis=0)[: len(kernel)]
        store = lambda codes: grouped.packed(codes, scales, bits, group)  # noqa: E731
        return Grid(grouped.levels(bits), each, store)

    return grid


def _nf4(kernel: np.ndarray, group: int) -> Grid:
    """NF4 with double quantisation, in its own blocks of 64 inputs."""
    inputs, outputs = kernel.shape
    padded = np.zeros((-(-inputs // nf4.BLOCK) * nf4.BLOCK, outputs), np.float32)
    padded[:inputs] = kernel
    rounded = nf4.quantised(padded)
    scales = np.repeat(np.asarray(rounded._scales()), nf4.BLOCK, axis=1).T[:inputs]

    def store(codes: np.ndarray) -> Cut:
        whole = np.full(padded.shape, len(nf4.TABLE) // 2 - 1, np.uint8)  # 0.0 in the padding
        whole[:inputs] = codes
        pairs = whole.T.reshape(outputs, -1, 2)
        packed = (pairs[..., 0] << 4) | pairs[..., 1]
        return Cut(rounded.replace(codes=packed), inputs)

    return Grid(nf4.TABLE, scales, store)


FORMATS: dict[str, Callable[[np.ndarray, int], Grid]] = {
    "int8": _int8,
    **{f"int{bits}": _int(bits) for bits in (6, 5, 4, 3, 2)},
    "nf4": _nf4,
}
"""{name: (kernel float32 [I, O], inputs of a group) -> Grid}."""


def check(name: str, group: int) -> None:
    """ValueError for an unknown format or a group size below 1."""
    if name not in FORMATS:
        raise ValueError(f"format={name!r} is unknown; use one of {', '.join(FORMATS)}")
    if group < 1:
        raise ValueError(f"groups={group} is below 1; use 32, 64 or 128 inputs a scale")


def bits_per_weight(name: str, group: int, inputs: int, outputs: int) -> float:
    """Bits of codes and scales for each weight of a kernel [I, O], with codes packed as tightly as
    their number of values allows."""
    weights = inputs * outputs
    if name == "int8":
        return 8 + 32 * outputs / weights
    if name == "nf4":
        blocks = -(-inputs // nf4.BLOCK) * outputs
        return 4 + (8 * blocks + 32 * -(-blocks // nf4.OUTER) + 32) / weights
    return int(name.removeprefix("int")) + 16 * -(-inputs // group) * outputs / weights


def stacked(layers: list[Any]) -> Any:
    """Kernels of one shape as one struct whose arrays have a leading layer axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
