"""This file rounds parameters to the type of the computation before they are sent anywhere.

On a mesh a parameter is spread over devices and gathered where it is used. Rounded first, half as
many bytes travel, and as many again when the gradients are summed. Parameters and their sums over
micro-batches stay float32.
"""

import jax.numpy as jnp

from model.transformer.config import ModelConfig
from train.parallel.sharding import constrain_parameters
from train.rules import map_with_rules

# Scales and biases are few, and norms compute in float32.
ROUNDED_RULES = (
    (r"(kernel|embedding)$", True),
    (r"(scale|bias)$", False),
)


def as_computed(params: dict, cfg: ModelConfig) -> dict:
    """The parameters with kernels and tables in `cfg.dtype`, each lying as it did."""
    dtype = jnp.dtype(cfg.dtype)
    if dtype == jnp.float32:
        return params
    return constrain_parameters(
        map_with_rules(
            lambda name, leaf, yes: leaf.astype(dtype) if yes else leaf,
            ROUNDED_RULES,
            params,
            "ROUNDED_RULES",
        )
    )
