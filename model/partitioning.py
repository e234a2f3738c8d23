"""This file asks for activations to lie on the mesh in force: logical axes in, constraints out.

The mesh is the one of `jax.set_mesh`, and the table from logical to mesh axes that of
`flax.linen.logical_axis_rules`; both are in force while a program is traced. Without them nothing
is sharded and everything here does nothing.
"""

import math
from contextlib import AbstractContextManager

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec

RING = 16  # TPUs along an axis of the largest slices: among about so many they reduce to parts


def mesh_axes(axis: str | None) -> tuple[str, ...]:
    """The mesh axes along which a logical axis lies: those of its rule that the mesh has."""
    targets = dict(nn.get_logical_axis_rules()).get(axis, ())
    return tuple(name for name in targets if name in jax.sharding.get_abstract_mesh().shape)


def spec(*axes: str | None) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes; None: replicated along it."""
    return PartitionSpec(*[mesh_axes(axis) or None for axis in axes])


def ways(axis: str) -> int:
    """Into how many parts the mesh in force cuts a logical axis."""
    shape = jax.sharding.get_abstract_mesh().shape
    return math.prod(shape[name] for name in mesh_axes(axis))


def platform() -> str:
    """cpu, gpu or tpu: of the mesh's devices, which may be described only, or of the default."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    name = getattr(described, "platform", None) or jax.default_backend()
    return {"cuda": "gpu", "rocm": "gpu"}.get(name, name)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Asks for `x` to be sharded by these logical axes."""
    if jax.sharding.get_abstract_mesh().size <= 1 or not nn.get_logical_axis_rules():
        return x
    return jax.lax.with_sharding_constraint(x, spec(*axes))


def whole_along(axes: tuple[str, ...]) -> AbstractContextManager:
    """A context in which nothing lies along these mesh axes: inside a `shard_map` over them, where
    an array is what one device has of it."""
    rules = nn.get_logical_axis_rules()
    left = [(axis, tuple(name for name in of if name not in axes)) for axis, of in rules]
    return nn.logical_axis_rules(left)


def summed(x: jax.Array, scattered: PartitionSpec, axes: tuple[str, ...]) -> jax.Array:
    """Inside a `shard_map`: x summed over mesh axes, of which each device is left with its part
    along those that `scattered` names.

    Along more than a few devices in stages, as TPUs' compiler reduces to parts only among
    devices on one ring of a slice; else it sends everything to every device, twice the bytes.
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
    """Groups of the devices of an axis for the stages of a reduction, the most distant ones first:
    they are numbered as by digits, and a group differs in one digit."""
    found, inner = [], devices
    for size in _digits(devices):
        inner //= size
        starts = range(0, devices, inner * size)
        found.append(
            [
                list(range(start + i, start + inner * size, inner))
                for start in starts
                for i in range(inner)
            ]
        )
    return found


def _digits(devices: int) -> list[int]:
    """Sizes of the stages: two, as nearly the same as can be; more where one would be too large."""
    last = next(n for n in range(min(math.isqrt(devices), RING), 0, -1) if devices % n == 0)
    rest = devices // last
    if last == 1:
        return [devices]
    return [*(_digits(rest) if rest > 2 * RING else [rest]), last]
