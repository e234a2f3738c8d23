"""The classification head: a Linear from a state to the logits of C classes.

A family that offers it has a key `n_classes`, which is 0 without a head, and the parameters
`classes/kernel` [D, C] and `classes/bias` [C].
"""

from typing import Any

import jax
import jax.numpy as jnp

PATHS = r"^classes/"
PARAMETER_AXES = ((r"^classes/kernel$", ("embed", "vector")), (r"^classes/bias$", ("vector",)))


def init(key: jax.Array, cfg: Any) -> dict:
    """The fresh head of a family's Config, N(0, init_std); nothing if `n_classes` is 0."""
    if not cfg.n_classes:
        return {}
    kernel_DC = cfg.init_std * jax.random.normal(key, (cfg.d_model, cfg.n_classes))
    return {"classes": {"kernel": kernel_DC, "bias": jnp.zeros(cfg.n_classes)}}


def logits(params: dict, x: jax.Array) -> jax.Array:
    """Logits [..., C], float32, of states x [..., D]. `params` are those of the whole model."""
    head = params["classes"]
    x = x.astype(jnp.float32) @ head["kernel"].astype(jnp.float32)
    return x + head["bias"]


def count(cfg: Any) -> int:
    """The number of parameters."""
    return (cfg.d_model + 1) * cfg.n_classes
