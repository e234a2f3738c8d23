"""This file asks for activations to lie on the mesh in force: logical axes in, constraints out.

The mesh is the one of `jax.set_mesh`, and the table from logical to mesh axes that of
`flax.linen.logical_axis_rules`; both are in force while a program is traced. Without them nothing
is sharded and everything here does nothing.
"""

import math

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec


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
