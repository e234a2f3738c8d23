"""The bytes that a training state takes on one device, by component."""

from typing import Any

import jax
import numpy as np


def by_component(state: Any) -> dict[str, int]:
    """Bytes on one device of a TrainState of arrays, or of shapes with shardings: the trained
    parameters, their gradients, the optimiser's moments, and each set of frozen parameters. What a
    step computes in between, above all activations, comes on top: `isoflop compile` says how much.
    """
    parts = {
        "parameters": state.params,
        "gradients": state.params,
        "optimizer": state.opt_state,
        **{f"frozen {name}": tree for name, tree in state.frozen.items()},
    }
    return {name: sum(map(_bytes, jax.tree.leaves(tree))) for name, tree in parts.items()}


def _bytes(leaf: Any) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape)
    return int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize
