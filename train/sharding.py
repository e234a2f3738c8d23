"""This file spreads arrays over devices: which dimension of which array goes along which mesh axis.

Two tables. PARAMETER_RULES gives every parameter, by path, the logical axes of its dimensions;
MESH_AXES maps logical axes to mesh axes. Optimiser moments follow their parameter. With the default
mesh all devices lie along `fsdp`: batches are split, and parameters and moments too (Rajbhandari et
al. 2020, ZeRO stage 3); along `data` parameters are replicated.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train.rules import lookup, path_name

PARAMETER_RULES = (
    (r"^embed/embedding$", ("vocab", "embed")),
    (r"^position/embedding$", ("position", "embed")),
    (r"^blocks/attention/(query|key|value)/kernel$", ("layer", "embed", "heads")),
    (r"^blocks/attention/(query|key|value)/bias$", ("layer", "heads")),
    (r"^blocks/attention/out/kernel$", ("layer", "heads", "embed")),
    (r"^blocks/mlp/(up|gate)/kernel$", ("layer", "embed", "mlp")),
    (r"^blocks/mlp/(up|gate)/bias$", ("layer", "mlp")),
    (r"^blocks/mlp/down/kernel$", ("layer", "mlp", "embed")),
    (r"^blocks/(attention/out|mlp/down)/bias$", ("layer", "vector")),
    (r"^blocks/(attention|mlp)_(post_)?norm/(scale|bias)$", ("layer", "vector")),
    (r"^blocks/attention/(query|key)_norm/(scale|bias)$", ("layer", "vector")),
    (r"^final_norm/(scale|bias)$", ("vector",)),
    (r"^head/kernel$", ("embed", "vocab")),
)

MESH_AXES = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    # Replicated:
    "layer": None,
    "vocab": None,
    "position": None,
    "heads": None,
    "mlp": None,
    "vector": None,
    "seq": None,
    "activation": None,
}


class Misfit(ValueError):
    """A mesh, or sizes on it, that cannot be."""


def make_mesh(sizes: dict[str, int], devices: list | None = None) -> Mesh:
    """A mesh over all local devices; one size may be -1. ValueError if the product is not their
    number, or if an axis is no value of MESH_AXES."""
    devices = jax.local_devices() if devices is None else devices
    sizes, used = dict(sizes), _mesh_axes_in_use()
    for axis, size in sizes.items():
        if axis not in used:
            raise Misfit(
                f"mesh.{axis}={size}: no entry of MESH_AXES uses this axis; use {', '.join(used)}"
            )
        if size != -1 and size < 1:
            raise Misfit(f"mesh.{axis}={size} must be a positive number, or -1 for the rest")
    inferred = [axis for axis, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size != -1)
    text = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
    if len(inferred) > 1:
        raise Misfit(f"{text}: only one axis can be -1")
    if inferred:
        sizes[inferred[0]] = len(devices) // known
    if math.prod(sizes.values()) != len(devices):
        raise Misfit(
            f"{text} does not multiply to the {len(devices)} devices there are; "
            f"set mesh.{inferred[0] if inferred else 'fsdp'} so that it does, or to -1"
        )
    shape = tuple(sizes.values())
    return Mesh(np.asarray(devices).reshape(shape), tuple(sizes))


def _mesh_axes_in_use() -> list[str]:
    values = [v if isinstance(v, tuple) else (v,) for v in MESH_AXES.values() if v]
    return sorted({axis for value in values for axis in value})


def spec(name: str, shape: tuple[int, ...], axes: tuple[str, ...], mesh: Mesh) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes; ValueError naming the array for a
    wrong rank, a mesh axis used twice, or a dimension that its mesh axis does not divide."""
    if len(axes) != len(shape):
        raise Misfit(f"{name}: its rule names {len(axes)} axes {axes}, its shape is {shape}")
    parts, taken = [], {}
    for dimension, axis in zip(shape, axes, strict=True):
        target = MESH_AXES[axis]
        for mesh_axis in (target,) if isinstance(target, str) else target or ():
            if mesh_axis in taken:
                raise Misfit(
                    f"{name}: logical axes {taken[mesh_axis]!r} and {axis!r} collide on mesh axis "
                    f"{mesh_axis!r}; map one of them elsewhere in MESH_AXES"
                )
            taken[mesh_axis] = axis
            if dimension % mesh.shape[mesh_axis]:
                raise Misfit(
                    f"{name}: dimension {axis!r} = {dimension} of {shape} is not divisible by "
                    f"mesh.{mesh_axis}={mesh.shape[mesh_axis]}; change the size, "
                    "or set mesh.fsdp=1 mesh.data=-1"
                )
        parts.append(target)
    return PartitionSpec(*parts)


def parameter_shardings(params: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every parameter (arrays or shapes)."""

    def one(path, leaf):
        name = path_name(path)
        axes = lookup(PARAMETER_RULES, name, "PARAMETER_RULES")
        return NamedSharding(mesh, spec(name, leaf.shape, axes, mesh))

    return jax.tree_util.tree_map_with_path(one, params)


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Shardings of a TrainState (arrays or shapes). Optimiser leaves whose path ends in a
    parameter's path and that have its shape follow it; counters and factored moments, which are
    small, are replicated."""
    replicated = NamedSharding(mesh, PartitionSpec())
    params = parameter_shardings(state.params, mesh)
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    shapes = {path_name(path): leaf.shape for path, leaf in leaves}
    by_name = {path_name(p): s for p, s in jax.tree_util.tree_leaves_with_path(params)}

    def follow(path, leaf):
        name = path_name(path)
        owner = next((n for n in by_name if name == n or name.endswith("/" + n)), None)
        return by_name[owner] if owner and shapes[owner] == leaf.shape else replicated

    return jax.tree.map(lambda _: replicated, state).replace(
        params=params,
        opt_state=jax.tree_util.tree_map_with_path(follow, state.opt_state),
    )


def batch_sharding(mesh: Mesh, leading: int) -> NamedSharding:
    """Rows of a batch over all devices; `leading` dimensions (steps) stand before the rows."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, MESH_AXES["batch"]))


@contextlib.contextmanager
def activation_rules(mesh: Mesh) -> Iterator[None]:
    """A context in which the model's `constrain` calls take effect while it is traced."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(MESH_AXES.items())):
        yield
