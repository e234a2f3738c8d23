"""This file attends with splash, JAX's Pallas kernel for TPUs: blocks of the scores that the mask
leaves empty are skipped, and nothing of size [T, S] is written to memory (Dao et al. 2022).

The tokens of a row may lie on several devices. Then each device gathers the keys and values of all
and scores its own queries, as in section 3.3.2 of Dubey et al. 2024 (Llama 3). Under a causal mask
the last queries see many times more keys than the first: the row's queries are cut in twice as many
parts as devices, and each computes one part and its mirror image, so that all have as much to do.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu import splash_attention as kernels
from jax.sharding import PartitionSpec

from model.partitioning import platform, summed

BLOCKS = (512, 384, 256, 128)  # tokens; the largest that divides what a device has is used


@dataclass(frozen=True)
class Spread:
    """The mesh axis along which the tokens of a row lie, and its devices; None: one has all."""

    axis: str | None
    devices: int

    def gathered(self, x: jax.Array, axis: int = 1) -> jax.Array:
        """x of all devices, joined along one of its axes. Kept whole by model.remat=none alone."""
        return x if self.axis is None else _gathered(x, self.axis, axis)

    def halves(self) -> np.ndarray:
        """[devices, 2]: which two of the row's 2 x devices parts a device computes, p and its
        mirror image, the even one first."""
        part = np.arange(self.devices)
        mirror = 2 * self.devices - 1 - part
        even = part % 2 == 0
        return np.stack([np.where(even, part, mirror), np.where(even, mirror, part)], 1)

    def exchanged(self, x: jax.Array, back: bool = False) -> jax.Array:
        """This device's halves of x [B, T, …], from the devices that hold them; or `back` there.

        Device i holds parts 2i and 2i + 1: one exchange moves all even parts, another all odd.
        """
        if self.axis is None:
            return x
        moved = []
        for half, parts in zip(jnp.split(x, 2, axis=1), self.halves().T, strict=True):
            pairs = [(int(part) // 2, device) for device, part in enumerate(parts)]
            pairs = [pair[::-1] for pair in pairs] if back else pairs
            moved.append(jax.lax.ppermute(half, self.axis, pairs))
        return jnp.concatenate(moved, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(x: jax.Array, along: str, axis: int) -> jax.Array:
    return jax.lax.all_gather(x, along, axis=axis, tiled=True)


def _home(along: str, axis: int, _: None, dx: jax.Array) -> tuple[jax.Array]:
    """Each device's part of the sum over devices, in the gradient's own type. TPUs' compiler sums
    to parts along a first dimension; along another it sent everything to everyone."""
    n = jax.sharding.get_abstract_mesh().shape[along]
    parts = jnp.moveaxis(dx.reshape(*dx.shape[:axis], n, -1, *dx.shape[axis + 1 :]), axis, 0)
    return (summed(parts, PartitionSpec(along), (along,))[0],)


_gathered.defvjp(lambda x, along, axis: (_gathered(x, along, axis), None), _home)


class CausalWindowMask(kernels.Mask):
    """Which of a row's keys its queries see: none later, and the last `window` if it is not 0.

    `q_sequence` are the queries' positions in the order they are computed in, of which every block
    is one run; by it and `mask_function` the kernel makes its masks on the fly. What is asked of a
    block is whether any of it is seen, and all: where one bit says so nothing of its size is made,
    as rows of 131,072 tokens have 65,536. Equal masks are gone through once.
    """

    def __init__(self, q_sequence: np.ndarray, window: int):
        self.q_sequence, self.window = q_sequence.astype(np.int32), window

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.q_sequence), len(self.q_sequence)

    def mask_function(self, queries, keys):
        seen = queries >= keys
        return seen & (queries < keys + self.window) if self.window else seen

    def __getitem__(self, block: tuple[slice, slice]) -> np.ndarray:
        queries, keys = self.q_sequence[block[0]], np.arange(block[1].start, block[1].stop)
        nearest, furthest = queries[0] - keys[-1], queries[-1] - keys[0]
        if furthest < 0 or (self.window and nearest >= self.window):
            return np.zeros((1, 1), bool)
        if nearest >= 0 and not (self.window and furthest >= self.window):
            return np.ones((1, 1), bool)
        return self.mask_function(queries[:, None], keys[None, :])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CausalWindowMask):
            return NotImplemented
        return self.window == other.window and np.array_equal(self.q_sequence, other.q_sequence)

    def __hash__(self) -> int:
        return hash((self.window, self.q_sequence.tobytes()))


def attention(
    q_BTHC: jax.Array,
    k_BTKC: jax.Array,
    v_BTKC: jax.Array,
    segments_BT: jax.Array | None,
    window: int,
    softcap: float,
    spread: Spread,
) -> jax.Array:
    """Causal self-attention [B, T, H, C] of scaled queries, in a `shard_map` where a row is spread.

    Elsewhere than on a TPU the kernel is interpreted: for tests.
    """
    T, H = q_BTHC.shape[1:3]
    kernel = of_device(T * spread.devices, H, window, softcap, spread)
    q_BHTC = spread.exchanged(q_BTHC).swapaxes(1, 2)
    k_BKSC = spread.gathered(k_BTKC.swapaxes(1, 2), axis=2)
    v_BKSC = spread.gathered(v_BTKC.swapaxes(1, 2), axis=2)
    ids = None
    if segments_BT is not None:
        ids = kernels.SegmentIds(spread.exchanged(segments_BT), spread.gathered(segments_BT))
    o_BHTC = jax.vmap(kernel)(q_BHTC, k_BKSC, v_BKSC, ids)
    return spread.exchanged(o_BHTC.swapaxes(1, 2), back=True)


def of_device(
    length: int, heads: int, window: int, softcap: float, spread: Spread
) -> Callable[..., jax.Array]:
    """What one device computes of rows of `length` tokens: of the blocks of all, its own."""
    parts = 2 * spread.devices if spread.axis else 1
    positions = np.arange(length).reshape(parts, -1)
    if spread.axis:
        positions = positions[spread.halves().ravel()]
    size = next(n for n in BLOCKS if positions.shape[1] % n == 0)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    whole = kernels.make_splash_mha(
        mask=kernels.MultiHeadMask([CausalWindowMask(positions.ravel(), window)] * heads),
        block_sizes=kernels.BlockSizes(**dict.fromkeys(names, size)),
        attn_logits_soft_cap=softcap or None,
        head_shards=1,
        q_seq_shards=spread.devices,
        residual_checkpoint_name="attention",
        interpret=platform() != "tpu",
    )
    if spread.axis is None:
        return whole

    def own(x: jax.Array) -> jax.Array:
        axis = 0 if x.ndim == 1 else 1  # q_sequence [T], or blocks [heads, queries, keys]
        each = x.shape[axis] // spread.devices
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(spread.axis) * each, each, axis)

    return jax.tree.map(own, whole)
