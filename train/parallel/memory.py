"""The bytes that a training state takes on one device, by component."""

from typing import Any

import jax
import numpy as np

from train.optimizers.offload import HOST


def by_component(state: Any) -> dict[str, int]:
    """Bytes on one device of a TrainState of arrays, or of shapes with shardings: the trained
    parameters, their gradients, the optimiser's moments, and each set of frozen parameters. Moments
    in the host's memory are a component of their own. What a step computes in between, above all
    activations, comes on top: `isoflop compile` says how much.
    """
    moments = jax.tree.leaves(state.opt_state)
    on_host = [leaf for leaf in moments if is_on_host(leaf)]
    parts = {
        "parameters": state.params,
        "gradients": state.params,
        "optimizer": [leaf for leaf in moments if not is_on_host(leaf)],
        **({"optimizer on the host": on_host} if on_host else {}),
        **{f"frozen {name}": tree for name, tree in state.frozen.items()},
    }
    return {name: sum(map(local_bytes, jax.tree.leaves(tree))) for name, tree in parts.items()}


def is_on_host(leaf: Any) -> bool:
    """Whether an array, or a shape with a sharding, is in the memory of the host."""
    return leaf.sharding.memory_kind == HOST


def local_bytes(leaf: Any) -> int:
    """The bytes of one device's part of an array, or of a shape with a sharding."""
    shape = leaf.sharding.shard_shape(leaf.shape)
    return int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize
