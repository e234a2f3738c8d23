"""Quantises the kernels of a whole model, and stores them as plain arrays."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model import families, parameters
from model.quantised import formats, gptq, inputs
from model.quantised.rounded_inputs import RoundedInputs

CALIBRATIONS = ("", "gptq")
ACTIVATIONS = ("", "int8")


@dataclass(frozen=True)
class Quantisation:
    """How the kernels of a model's blocks are stored. ValueError names the key, the value and the
    valid ones. Embeddings, heads, norms and biases stay as they are."""

    format: str
    groups: int = 32  # inputs of one scale; int8 and nf4 have their own
    activations: str = ""
    calibrate: str = ""

    def __post_init__(self):
        formats.check(self.format, self.groups)
        for key, known in (("activations", ACTIVATIONS), ("calibrate", CALIBRATIONS)):
            if (value := getattr(self, key)) not in known:
                raise ValueError(f"{key}={value!r} is unknown; use {known[1]}, or '' for none")


def kernels(family: families.Family, cfg: Any) -> dict[str, tuple[int, ...]]:
    """{path: shape [L, I, O]} of the kernels that are quantised. ValueError for a family that names
    none."""
    if not hasattr(family, "LINEARS"):
        able = [name for name, other in families.FAMILIES.items() if hasattr(other, "LINEARS")]
        raise ValueError(
            f"model.family={families.name_of(family)!r} names no matrices to quantise; use a model "
            f"of {', '.join(able)}"
        )
    shapes = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    leaves = parameters.flat(shapes)
    return {path: leaf.shape for path, leaf in leaves.items() if re.search(family.LINEARS, path)}


def quantised(
    family: families.Trained,
    cfg: Any,
    params: dict,
    how: Quantisation,
    batches: Sequence[dict] = (),
    advance: Callable[[float], None] = lambda share: None,
) -> dict:
    """The parameters with quantised kernels. `batches`: calibration text for GPTQ, as
    `inputs.products` reads it. GPTQ rounds a layer after those below it, on inputs that they give.
    Calls `advance` with the share that is done."""
    paths = kernels(family, cfg)
    leaves = parameters.flat(jax.tree.map(np.asarray, params))
    dense, made = dict(leaves), {path: [] for path in paths}
    layers = max(shape[0] for shape in paths.values())
    for layer in range(layers):
        sums = {}
        if how.calibrate:
            sums = inputs.hessians(family, cfg, parameters.nested(dense), list(batches))
        for path in paths:
            kernel = np.asarray(leaves[path][layer], np.float32)
            grid = formats.FORMATS[how.format](kernel, how.groups)
            name = path.removeprefix("blocks/").removesuffix("/kernel")
            if how.calibrate:
                codes = gptq.calibrated(kernel, np.asarray(sums[name][layer]), grid)
                values = np.array(dense[path], np.float32)
                values[layer] = grid.values(codes)
                dense[path] = values
            else:
                codes = grid.codes(kernel)
            made[path].append(grid.assembled(codes))
        advance((layer + 1) / layers)
    stacked = {path: formats.stacked(layers) for path, layers in made.items()}
    return with_kernels(leaves, stacked, how)


def with_kernels(leaves: Mapping[str, Any], stacked: Mapping[str, Any], how: Quantisation) -> dict:
    """A tree of parameters whose kernels are the structs in `stacked`."""
    if how.activations:
        stacked = {path: RoundedInputs(kernel) for path, kernel in stacked.items()}
    return parameters.nested(dict(leaves) | dict(stacked))


def is_kernel(leaf: Any) -> bool:
    """Whether a node of a tree is a quantised kernel."""
    return hasattr(leaf, "dense")


def dense(params: dict, dtype: Any = jnp.float32) -> dict:
    """The parameters with plain arrays, which any family's functions and checkpoints take."""
    return jax.tree.map(lambda x: x.dense(dtype) if is_kernel(x) else x, params, is_leaf=is_kernel)


def stored(params: dict) -> dict:
    """The parameters as a nested dict of arrays: those of a kernel are beside each other."""
    return jax.tree.map(
        lambda x: _arrays(x) if is_kernel(x) else np.asarray(x), params, is_leaf=is_kernel
    )


def _arrays(kernel: Any) -> dict[str, np.ndarray]:
    paths, _ = jax.tree_util.tree_flatten_with_path(kernel)
    return {path[-1].name: np.asarray(leaf) for path, leaf in paths}


def restored(family: families.Trained, cfg: Any, arrays: dict, how: Quantisation) -> dict:
    """The inverse of `stored`. ValueError where the arrays are not those of the model."""
    leaves, found = parameters.flat(arrays), {}
    for path, (count, fan_in, outputs) in kernels(family, cfg).items():
        grid = formats.FORMATS[how.format](np.zeros((fan_in, outputs), np.float32), how.groups)
        like = grid.assembled(np.zeros((fan_in, outputs), np.uint8))
        flat, shape = jax.tree_util.tree_flatten_with_path(like)
        parts = []
        for where, one in flat:
            name = f"{path}/{where[-1].name}"
            wanted = (count, *np.shape(one))
            if name not in leaves or leaves[name].shape != wanted:
                raise ValueError(f"parameter {name} {wanted} is missing or has another shape")
            parts.append(leaves.pop(name))
        found[path] = jax.tree_util.tree_unflatten(shape, parts)
    shapes = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    others = {path: leaf for path, leaf in parameters.flat(shapes).items() if path not in found}
    parameters.check(parameters.nested(others), parameters.nested(leaves))
    return with_kernels(leaves, found, how)


def size(params: dict) -> int:
    """Bytes of all arrays."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(params))


def bits(family: families.Trained, cfg: Any, how: Quantisation) -> float:
    """Mean bits of a quantised weight, with its scales."""
    found = kernels(family, cfg).values()
    weights = [count * fan_in * outputs for count, fan_in, outputs in found]
    each = [formats.bits_per_weight(how.format, how.groups, i, o) for _, i, o in found]
    return float(np.average(each, weights=weights))
