"""Parameters rounded to the type of the computation before they travel between devices.

On a mesh a parameter is spread over devices and gathered where it is used. Rounding it first halves
the bytes that travel, and those of the gradients that are summed. Parameters and their sums over
micro-batches stay float32.
"""

from typing import Any

import jax.numpy as jnp

from train.parallel.sharding import constrain_parameters
from train.rules import Rules, map_with_rules

# Scales and biases are few, and norms compute in float32.
ROUNDED_RULES = (
    (r"(kernel|embedding)$", True),
    (r"(scale|bias)$", False),
)


def as_computed(params: dict, cfg: Any, axes: Rules) -> dict:
    """The parameters with kernels and tables in `cfg.dtype`, each lying as `axes` says. Families
    whose Config has no dtype compute in float32."""
    dtype = jnp.dtype(getattr(cfg, "dtype", "float32"))
    if dtype == jnp.float32:
        return params
    return constrain_parameters(
        map_with_rules(
            lambda name, leaf, yes: leaf.astype(dtype) if yes else leaf,
            ROUNDED_RULES,
            params,
            "ROUNDED_RULES",
        ),
        axes,
    )
