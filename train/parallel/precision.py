"""Casts parameters to the computation dtype before they are sent between devices.

On a mesh, a parameter is sharded and gathered where it is used. Casting it first halves the bytes
sent for it and for its gradients. The stored parameters and the sums of gradients over
micro-batches stay float32.
"""

from typing import Any

import jax.numpy as jnp

from train.parallel.sharding import constrain_parameters
from train.rules import Rules, map_with_rules

# Scales and biases are small, and norms compute in float32.
ROUNDED_RULES = (
    (r"(kernel|embedding|lora_a|lora_b)$", True),
    (r"(scale|bias|lora_magnitude)$", False),
)


def cast_for_compute(params: dict, cfg: Any, axes: Rules) -> dict:
    """The parameters with kernels and embeddings in `cfg.dtype`, sharded by the rules `axes`.
    Families whose Config has no dtype compute in float32."""
    if _dtype(cfg) == jnp.float32:
        return params
    return constrain_parameters(rounded(params, cfg), axes)


def rounded(params: dict, cfg: Any) -> dict:
    """The parameters, arrays of the host or of devices, with kernels and embeddings in
    `cfg.dtype`."""
    dtype = _dtype(cfg)
    if dtype == jnp.float32:
        return params
    return map_with_rules(
        lambda name, leaf, yes: leaf.astype(dtype) if yes else leaf,
        ROUNDED_RULES,
        params,
        "ROUNDED_RULES",
    )


def _dtype(cfg: Any) -> jnp.dtype:
    return jnp.dtype(getattr(cfg, "dtype", "float32"))
