"""This file knows the parameters that a ModelConfig asks for, and checks those that are given."""

import dataclasses
import functools
from typing import Any

import jax

from model.transformer import decoder as transformer
from model.transformer.config import ModelConfig


@functools.lru_cache(maxsize=64)
def shapes(cfg: ModelConfig) -> dict:
    """The tree of parameters with shapes in place of arrays; nothing is computed."""
    # All blocks are alike: one is traced in place of 126.
    shallow = dataclasses.replace(cfg, n_layers=1)
    tree = jax.eval_shape(lambda: transformer.init(shallow, jax.random.key(0)))
    stack = lambda leaf: jax.ShapeDtypeStruct((cfg.n_layers, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    return tree | {"blocks": jax.tree.map(stack, tree["blocks"])}


def flat(params: Any) -> dict[str, Any]:
    """{"blocks/mlp/up/kernel": leaf, …}."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def nested(leaves: dict[str, Any]) -> dict:
    """The tree that `flat` made flat."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def check(cfg: ModelConfig, params: Any) -> None:
    """ValueError names a parameter that is missing, one too many, or of another shape."""
    wanted, found = flat(shapes(cfg)), flat(params)
    for name, leaf in wanted.items():
        if name not in found:
            raise ValueError(f"parameter {name} {leaf.shape} is missing")
        if found[name].shape != leaf.shape:
            raise ValueError(
                f"parameter {name} has shape {found[name].shape}; the model needs {leaf.shape}"
            )
    for name in found:
        if name not in wanted:
            raise ValueError(f"parameter {name} {found[name].shape} is unknown to the model")
