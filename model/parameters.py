"""Parameter trees of any model: flat by path, nested again, checked against the shapes wanted."""

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
    """ValueError names a parameter that is missing, unknown or of another shape than in `shapes`,
    the tree that the model needs."""
    wanted, found = flat(shapes), flat(params)
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
