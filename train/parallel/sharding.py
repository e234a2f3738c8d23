"""This file spreads arrays over devices: which dimension of which array goes along which mesh axis.

Two tables. PARAMETER_RULES gives every parameter, by path, the logical axes of its dimensions;
MESH_AXES, in train/parallel/mesh.py, maps logical axes to mesh axes. Optimiser moments follow their
parameter.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from model.kernels import backends
from model.transformer.attention import attention_spec
from model.transformer.config import ModelConfig
from train.parallel.mesh import MESH_AXES, MeshError
from train.parallel.mesh import make_mesh as make_mesh
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

AnyMesh = Mesh | AbstractMesh  # the second where a program is traced, or in a test without devices


def require(cfg: ModelConfig, mesh: AnyMesh) -> None:
    """MeshError where the mesh does not divide the model's heads, width or context, or where the
    attention that the model asks for cannot be computed on it."""
    ways = {axis: mesh.shape.get(axis, 1) for axis in ("tensor", "sequence")}
    of_axis = ("n_heads", "tensor"), ("d_model", "tensor"), ("context_length", "sequence")
    for key, axis in of_axis:
        size, parts = getattr(cfg, key), ways[axis]
        if size % parts:
            raise MeshError(
                f"model.{key}={size} is not divisible by mesh.{axis}={parts}; "
                f"use model.{key}={_nearest(size, parts)}, or mesh.{axis}={math.gcd(size, parts)}"
            )
    kv, parts = cfg.n_kv_heads, ways["tensor"]
    if kv % parts and parts % kv:  # fewer heads than parts are repeated
        raise MeshError(
            f"model.n_kv_heads={kv} neither divides mesh.tensor={parts} nor is divisible by it; "
            f"use mesh.tensor={math.gcd(kv, parts)}"
        )
    with activation_rules(mesh):
        try:
            backends.choose(cfg.attention, attention_spec(cfg), cfg.context_length)
        except ValueError as error:
            raise MeshError(error) from error


def _nearest(size: int, parts: int) -> str:
    """The multiples of `parts` next to `size`."""
    below, above = size // parts * parts, (size // parts + 1) * parts
    return f"{below} or {above}" if below else str(above)


def spec(name: str, shape: tuple[int, ...], axes: tuple[str, ...], mesh: AnyMesh) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes; MeshError naming the array for a
    wrong rank, a mesh axis used twice, or a dimension that its mesh axes do not divide."""
    if len(axes) != len(shape):
        raise MeshError(f"{name}: its rule names {len(axes)} axes {axes}, its shape is {shape}")
    parts, taken = [], {}
    for dimension, axis in zip(shape, axes, strict=True):
        targets = tuple(target for target in MESH_AXES[axis] if target in mesh.shape)
        for target in targets:
            if target in taken:
                raise MeshError(
                    f"{name}: logical axes {taken[target]!r} and {axis!r} collide on mesh axis "
                    f"{target!r}; map one of them elsewhere in MESH_AXES"
                )
            taken[target] = axis
        ways = math.prod(mesh.shape[target] for target in targets)
        if dimension % ways:
            text = " × ".join(f"mesh.{target}={mesh.shape[target]}" for target in targets)
            raise MeshError(
                f"{name}: dimension {axis!r} = {dimension} of {shape} is not divisible by "
                f"{text}; use {_nearest(dimension, ways)}, or a smaller mesh.{targets[0]}"
            )
        parts.append(targets or None)
    return PartitionSpec(*parts)


def parameter_shardings(params: Any, mesh: AnyMesh) -> Any:
    """A NamedSharding for every parameter (arrays or shapes)."""
    return jax.tree.map(lambda axes: NamedSharding(mesh, axes), parameter_specs(params, mesh))


def parameter_specs(params: Any, mesh: AnyMesh | None = None) -> Any:
    """A PartitionSpec for every parameter (arrays or shapes); None: on the mesh in force."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh

    def one(path, leaf):
        name = path_name(path)
        return spec(name, leaf.shape, lookup(PARAMETER_RULES, name, "PARAMETER_RULES"), mesh)

    return jax.tree_util.tree_map_with_path(one, params)


def state_shardings(state: Any, mesh: AnyMesh) -> Any:
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


def _rules_apply(mesh: AnyMesh) -> bool:
    """Whether an axis of this mesh splits something; not that of stacked trials, which are spread
    over devices as they are."""
    return any(mesh.shape.get(target, 1) > 1 for axes in MESH_AXES.values() for target in axes)


def constrain_parameters(tree: Any) -> Any:
    """Asks for parameters, or what has their shapes, to lie as the rules say on the mesh in force.

    Of gradients: so that each device is sent the sum of its own part (reduce-scatter) and not all
    of it (all-reduce).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not _rules_apply(mesh):
        return tree
    return jax.lax.with_sharding_constraint(tree, parameter_shardings(tree, mesh))


def constrain_state(state: Any) -> Any:
    """Asks for a TrainState to lie as `state_shardings` says, so that what comes out of a program
    can go in again."""
    mesh = jax.sharding.get_abstract_mesh()
    if not _rules_apply(mesh):
        return state
    return jax.lax.with_sharding_constraint(state, state_shardings(state, mesh))


def batch_sharding(mesh: Mesh, leading: int) -> NamedSharding:
    """Of a batch [B, T]; `leading` dimensions (steps) stand before its rows."""
    axes = [tuple(t for t in MESH_AXES[axis] if t in mesh.shape) for axis in ("batch", "seq")]
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, *[a or None for a in axes]))


@contextlib.contextmanager
def activation_rules(mesh: AnyMesh) -> Iterator[None]:
    """A context in which the model's `constrain` calls take effect while it is traced."""
    enter = jax.set_mesh if isinstance(mesh, Mesh) else jax.sharding.use_abstract_mesh
    with enter(mesh), nn.logical_axis_rules(list(MESH_AXES.items())):
        yield
