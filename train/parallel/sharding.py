"""Computes shardings: the mesh axes of each dimension of each array.

Two tables determine them. A family's PARAMETER_AXES maps the path of every parameter to the logical
axes of its dimensions; MESH_AXES in train/parallel/mesh.py maps logical axes to mesh axes.
Optimiser moments are sharded like the parameter with the same path, frozen parameters by the rules
of their family.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from data.fields import Field
from model.families import Family
from train.optimizers import offload
from train.parallel.mesh import MESH_AXES, MeshError
from train.parallel.mesh import make_mesh as make_mesh
from train.rules import Rules, lookup, path_name

AnyMesh = Mesh | AbstractMesh  # abstract while a program is traced, and in tests without devices


def require(family: Family, cfg: Any, mesh: AnyMesh) -> None:
    """Raises MeshError if the family's `check_mesh` rejects the mesh."""
    if not hasattr(family, "check_mesh"):
        return
    with activation_rules(mesh):
        try:
            family.check_mesh(cfg, dict(mesh.shape))
        except ValueError as error:
            raise MeshError(error) from error


def require_host_memory(mesh: Mesh) -> None:
    """Raises MeshError if the devices cannot keep moments in the host's memory."""
    try:
        offload.require(mesh.devices.ravel())
    except ValueError as error:
        raise MeshError(error) from error


def _nearest(size: int, parts: int) -> str:
    """The multiples of `parts` nearest to `size`."""
    below, above = size // parts * parts, (size // parts + 1) * parts
    return f"{below} or {above}" if below else str(above)


def spec(name: str, shape: tuple[int, ...], axes: tuple[str, ...], mesh: AnyMesh) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes. Raises MeshError, naming the array,
    for a wrong rank, a mesh axis used twice, or a dimension that its mesh axes do not divide."""
    if len(axes) != len(shape):
        raise MeshError(f"{name}: its rule names {len(axes)} axes {axes}, but its shape is {shape}")
    parts, used = [], {}
    for dimension, axis in zip(shape, axes, strict=True):
        if axis not in MESH_AXES:
            raise MeshError(
                f"{name}: the logical axis {axis!r} is not in MESH_AXES; use {', '.join(MESH_AXES)}"
            )
        targets = tuple(target for target in MESH_AXES[axis] if target in mesh.shape)
        for target in targets:
            if target in used:
                raise MeshError(
                    f"{name}: logical axes {used[target]!r} and {axis!r} collide on mesh axis "
                    f"{target!r}; map one of them elsewhere in MESH_AXES"
                )
            used[target] = axis
        ways = math.prod(mesh.shape[target] for target in targets)
        if dimension % ways:
            text = " × ".join(f"mesh.{target}={mesh.shape[target]}" for target in targets)
            raise MeshError(
                f"{name}: dimension {axis!r} = {dimension} of {shape} is not divisible by "
                f"{text}; use {_nearest(dimension, ways)}, or a smaller mesh.{targets[0]}"
            )
        parts.append(targets or None)
    return PartitionSpec(*parts)


def parameter_shardings(params: Any, axes: Rules, mesh: AnyMesh) -> Any:
    """A NamedSharding for every parameter (arrays or shapes) by its rule in `axes`."""
    specs = parameter_specs(params, axes, mesh)
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def parameter_specs(params: Any, axes: Rules, mesh: AnyMesh | None = None) -> Any:
    """A PartitionSpec for every parameter (arrays or shapes) on `mesh`, or the current mesh."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh

    def one(path, leaf):
        name = path_name(path)
        return spec(name, leaf.shape, lookup(axes, name, "PARAMETER_AXES"), mesh)

    return jax.tree_util.tree_map_with_path(one, params)


def state_shardings(
    state: Any,
    axes: Rules,
    frozen_axes: Mapping[str, Rules],
    mesh: AnyMesh,
    offloaded: bool = False,
) -> Any:
    """Shardings of a TrainState (arrays or shapes). An optimiser leaf is sharded like a parameter
    if its path ends in the parameter's path and their shapes are equal. Counters and factored
    moments are small and are replicated. `offloaded`: whether moments are in the host's memory.
    `frozen_axes` has the rules of each set of frozen parameters. A carry is sharded by rows, like a
    batch."""
    replicated = NamedSharding(mesh, PartitionSpec())
    params = parameter_shardings(state.params, axes, mesh)
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    shapes = {path_name(path): leaf.shape for path, leaf in leaves}
    by_name = {path_name(p): s for p, s in jax.tree_util.tree_leaves_with_path(params)}

    def follow(path, leaf):
        name = path_name(path)
        owners = [n for n in by_name if name == n or name.endswith("/" + n)]
        owner = max(
            owners, key=len, default=None
        )  # the longest, because a path can end in another parameter's path
        where = by_name[owner] if owner and shapes[owner] == leaf.shape else replicated
        on_host = offloaded and offload.is_moved(leaf)
        return where.with_memory_kind(offload.HOST) if on_host else where

    frozen = {
        name: parameter_shardings(tree, frozen_axes[name], mesh)
        for name, tree in state.frozen.items()
    }
    by_rows = row_sharding(mesh)
    return jax.tree.map(lambda _: replicated, state).replace(
        params=params,
        opt_state=jax.tree_util.tree_map_with_path(follow, state.opt_state),
        frozen=frozen,
        carry=jax.tree.map(lambda _: by_rows, state.carry),
    )


def _rules_apply(mesh: AnyMesh) -> bool:
    """Whether an axis of MESH_AXES splits arrays on this mesh. The axis of stacked trials is not in
    MESH_AXES, because their arrays are already sharded."""
    return any(mesh.shape.get(target, 1) > 1 for axes in MESH_AXES.values() for target in axes)


def constrain_parameters(tree: Any, axes: Rules) -> Any:
    """Constrains parameters, or arrays of their shapes, to the sharding by `axes` on the current
    mesh.

    For gradients, this sends each device only its part of the sum (reduce-scatter), not the whole
    sum (all-reduce).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not _rules_apply(mesh):
        return tree
    return jax.lax.with_sharding_constraint(tree, parameter_shardings(tree, axes, mesh))


def constrain_state(
    state: Any, axes: Rules, frozen_axes: Mapping[str, Rules], offloaded: bool = False
) -> Any:
    """Constrains a TrainState to its `state_shardings`, so that the output of a program can be its
    next input."""
    mesh = jax.sharding.get_abstract_mesh()
    if not _rules_apply(mesh):
        return state
    shardings = state_shardings(state, axes, frozen_axes, mesh, offloaded)
    return jax.lax.with_sharding_constraint(state, shardings)


def row_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """The sharding of arrays by their rows, which follow `leading` dimensions."""
    rows = tuple(target for target in MESH_AXES["batch"] if target in mesh.shape)
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, rows or None))


def constrain_rows(batch: Any, leading: int = 0) -> Any:
    """Constrains arrays to be sharded by their rows on the current mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    if not _rules_apply(mesh):
        return batch
    where = row_sharding(mesh, leading)
    return jax.lax.with_sharding_constraint(batch, jax.tree.map(lambda _: where, batch))


def batch_shardings(
    mesh: Mesh, fields: Mapping[str, Field], leading: int = 1
) -> dict[str, NamedSharding]:
    """The sharding of each field of a batch with `leading` dimensions (steps) before its rows."""

    def one(field: Field) -> NamedSharding:
        named = ["batch", *field.axes]
        along = [tuple(t for t in MESH_AXES.get(axis, ()) if t in mesh.shape) for axis in named]
        return NamedSharding(mesh, PartitionSpec(*[None] * leading, *[a or None for a in along]))

    return {name: one(field) for name, field in fields.items()}


@contextlib.contextmanager
def activation_rules(mesh: AnyMesh) -> Iterator[None]:
    """A context manager in which the `constrain` calls of a traced model take effect."""
    enter = jax.set_mesh if isinstance(mesh, Mesh) else jax.sharding.use_abstract_mesh
    with enter(mesh), nn.logical_axis_rules(list(MESH_AXES.items())):
        yield
