"""Flattens, nests and checks the parameter trees of any model."""

from typing import Any

import jax


def flat(params: Any) -> dict[str, Any]:
    """{"blocks/mlp/up/kernel": leaf, …}."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def nested(leaves: dict[str, Any]) -> dict:
    """The inverse of `flat`."""
    tree: dict = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def check(shapes: Any, params: Any) -> None:
    """Raises ValueError if a parameter is missing, unknown or has another shape than in `shapes`,
    the tree that the model needs.
    """
    expected, given = flat(shapes), flat(params)
    for name, leaf in expected.items():
        if name not in given:
            raise ValueError(f"parameter {name} {leaf.shape} is missing")
        if given[name].shape != leaf.shape:
            raise ValueError(
                f"parameter {name} has shape {given[name].shape}; the model needs {leaf.shape}"
            )
    for name in given:
        if name not in expected:
            raise ValueError(f"parameter {name} {given[name].shape} is unknown to the model")
