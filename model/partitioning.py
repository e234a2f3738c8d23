"""Sharding constraints on activations, by logical axes, for the current mesh.

`jax.set_mesh` sets the mesh, and `flax.linen.logical_axis_rules` maps logical to mesh axes. Both
apply while a program is traced. Without them nothing is sharded and `constrain` does nothing.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

RING = 16  # TPUs along an axis of the largest slices; one reduce-scatter spans about this many


def mesh_axes(axis: str | None) -> tuple[str, ...]:
    """The mesh axes that shard a logical axis: those of its rule that the mesh has."""
    targets = dict(nn.get_logical_axis_rules()).get(axis, ())
    return tuple(name for name in targets if name in jax.sharding.get_abstract_mesh().shape)


def spec(*axes: str | None) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes; None: not sharded."""
    return PartitionSpec(*[mesh_axes(axis) or None for axis in axes])


def ways(axis: str) -> int:
    """The number of parts into which the current mesh shards a logical axis."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[name] for name in mesh_axes(axis))


def platform() -> str:
    """cpu, gpu or tpu: the platform of the mesh's (maybe abstract) devices, or the default."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    name = getattr(described, "platform", None) or jax.default_backend()
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x` with the constraint that it is sharded by these logical axes."""
    if jax.sharding.get_abstract_mesh().size <= 1 or not nn.get_logical_axis_rules():
        return x
    return jax.lax.with_sharding_constraint(x, spec(*axes))


def require_divided(cfg: Any, sizes: Mapping[str, int], **axes: str) -> None:
    """ValueError unless the mesh divides these keys of a model; `axes` maps keys to mesh axes."""
    for key, axis in axes.items():
        size, parts = getattr(cfg, key), sizes.get(axis, 1)
        if size % parts:
            raise ValueError(
                f"model.{key}={size} is not divisible by mesh.{axis}={parts}; "
                f"use model.{key}={_multiples(size, parts)}, "
                f"or mesh.{axis}={math.gcd(size, parts)}"
            )


def require_whole_rows(family: str, sizes: Mapping[str, int]) -> None:
    """ValueError if the mesh shards the tokens of a row, which this family does not support."""
    if sizes.get("sequence", 1) > 1:
        raise ValueError(
            f"mesh.sequence={sizes['sequence']}: model.family={family!r} does not shard the tokens "
            "of a row; use mesh.sequence=1, and mesh.fsdp, mesh.data or mesh.tensor"
        )


def _multiples(size: int, parts: int) -> str:
    """The multiples of `parts` on either side of `size`."""
    below, above = size // parts * parts, (size // parts + 1) * parts
    return f"{below} or {above}" if below else str(above)


def whole_along(axes: tuple[str, ...]) -> AbstractContextManager:
    """A context in which these mesh axes shard nothing. For use inside a `shard_map` over them,
    where an array is one device's part.
    """
    rules = nn.get_logical_axis_rules()
    left = [(axis, tuple(name for name in of if name not in axes)) for axis, of in rules]
    return nn.logical_axis_rules(left)


def summed(x: jax.Array, scattered: PartitionSpec, axes: tuple[str, ...]) -> jax.Array:
    """Inside a `shard_map`: x summed over mesh axes; each device keeps its part along those axes
    that `scattered` names.

    Over many devices the sum proceeds in stages, because the TPU compiler reduce-scatters only
    among devices on one ring of a slice. Otherwise it all-reduces, which sends twice the bytes.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    over = [name for name in axes if sizes[name] > 1]
    for dimension, names in enumerate(scattered):
        for name in (names,) if isinstance(names, str) else names or ():
            if name in over:
                over.remove(name)
                for groups in stages(sizes[name]):
                    x = jax.lax.psum_scatter(
                        x, name, scatter_dimension=dimension, axis_index_groups=groups, tiled=True
                    )
    return jax.lax.psum(x, tuple(over)) if over else x


def stages(devices: int) -> list[list[list[int]]]:
    """Groups of an axis's devices for each stage of a reduction, the most distant devices first.

    If devices are numbered in a mixed radix, the devices of a group differ in one digit.
    """
    groups, inner = [], devices
    for size in _digits(devices):
        inner //= size
        starts = range(0, devices, inner * size)
        groups.append(
            [
                list(range(start + i, start + inner * size, inner))
                for start in starts
                for i in range(inner)
            ]
        )
    return groups


def _digits(devices: int) -> list[int]:
    """Sizes of the stages: two, as equal as possible, or more if one of the two is too large."""
    last = next(n for n in range(min(math.isqrt(devices), RING), 0, -1) if devices % n == 0)
    rest = devices // last
    if last == 1:
        return [devices]
    return [*(_digits(rest) if rest > 2 * RING else [rest]), last]
