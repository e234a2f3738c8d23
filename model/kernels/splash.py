"""Splash attention, JAX's Pallas kernel for TPUs: it skips fully masked blocks of the scores and
writes no array of size [T, S] to memory (Dao et al. 2022).

If the tokens of a row are sharded, each device gathers all keys and values and scores its own
queries, as in section 3.3.2 of Dubey et al. 2024 (Llama 3). Under a causal mask the last queries
see many more keys than the first. To balance the work, the queries of a row are cut into twice as
many parts as there are devices, and each device computes one part and its mirror image.
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

BLOCKS = (512, 384, 256, 128)  # tokens; the largest that divides a device's share is used


@dataclass(frozen=True)
class Spread:
    """The mesh axis that shards the tokens of a row, and its size; None: not sharded."""

    axis: str | None
    devices: int

    def gathered(self, x: jax.Array, axis: int = 1) -> jax.Array:
        """x of all devices, concatenated along `axis`. Stored for the backward pass only with
        model.remat=none.
        """
        return x if self.axis is None else _gathered(x, self.axis, axis)

    def halves(self) -> np.ndarray:
        """The two parts (of the row's 2 x devices parts) that each device computes, [devices, 2]: a
        part and its mirror image, the even one first.
        """
        part = np.arange(self.devices)
        mirror = 2 * self.devices - 1 - part
        even = part % 2 == 0
        return np.stack([np.where(even, part, mirror), np.where(even, mirror, part)], 1)

    def exchanged(self, x: jax.Array, back: bool = False) -> jax.Array:
        """Fetches this device's two parts of x [B, T, …]; with `back`, sends them to their owners.

        Device i holds parts 2i and 2i + 1: one exchange moves all even parts, another all odd ones.
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


def _gathered_backward(along: str, axis: int, _: None, dx: jax.Array) -> tuple[jax.Array]:
    """Each device's part of the sum over devices, in the gradient's dtype. The parts are along the
    first dimension: along any other, the TPU compiler sends everything to every device.
    """
    n = jax.sharding.get_abstract_mesh().shape[along]
    parts = jnp.moveaxis(dx.reshape(*dx.shape[:axis], n, -1, *dx.shape[axis + 1 :]), axis, 0)
    return (summed(parts, PartitionSpec(along), (along,))[0],)


_gathered.defvjp(lambda x, along, axis: (_gathered(x, along, axis), None), _gathered_backward)


class CausalWindowMask(kernels.Mask):
    """A causal mask, limited to the last `window` keys unless `window` is 0.

    `q_sequence` holds the queries' positions in the order of computation. The positions within a
    block are consecutive. The kernel computes masks on the fly from it and `mask_function`.
    Indexing returns the mask of a block, so that the kernel knows whether any or all of it is True.
    A block that is all True or all False is returned as one element, because a row of 131,072
    tokens has 65,536 blocks. Equal masks are processed once.
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


def splash_attention(
    q_BTHC: jax.Array,
    k_BTKC: jax.Array,
    v_BTKC: jax.Array,
    segments_BT: jax.Array | None,
    window: int,
    softcap: float,
    spread: Spread,
) -> jax.Array:
    """Causal self-attention [B, T, H, C] of scaled queries.

    If rows are sharded, it runs inside a `shard_map`. On platforms other than TPUs the kernel is
    interpreted, for tests.
    """
    T, H = q_BTHC.shape[1:3]
    kernel = device_kernel(T * spread.devices, H, window, softcap, spread)
    q_BHTC = spread.exchanged(q_BTHC).swapaxes(1, 2)
    k_BKSC = spread.gathered(k_BTKC.swapaxes(1, 2), axis=2)
    v_BKSC = spread.gathered(v_BTKC.swapaxes(1, 2), axis=2)
    ids = None
    if segments_BT is not None:
        ids = kernels.SegmentIds(spread.exchanged(segments_BT), spread.gathered(segments_BT))
    o_BHTC = jax.vmap(kernel)(q_BHTC, k_BKSC, v_BKSC, ids)
    return spread.exchanged(o_BHTC.swapaxes(1, 2), back=True)


def device_kernel(
    length: int, heads: int, window: int, softcap: float, spread: Spread
) -> Callable[..., jax.Array]:
    """One device's kernel, for rows of `length` tokens. It computes only the device's blocks."""
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

    def device_part(x: jax.Array) -> jax.Array:
        axis = 0 if x.ndim == 1 else 1  # q_sequence [T], or blocks [heads, queries, keys]
        each = x.shape[axis] // spread.devices
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(spread.axis) * each, each, axis)

    return jax.tree.map(device_part, whole)
