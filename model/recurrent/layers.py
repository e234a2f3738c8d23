"""What recurrent language models and recurrent encoder–decoders share: dropout, the kernels of a
layer inside its recurrence, and the head."""

from typing import Any

import jax
import jax.numpy as jnp

from model.partitioning import constrain
from model.recurrent.cells import CELLS
from model.transformer.layers import multiplied

FLOAT = jnp.dtype(jnp.float32)


def dropout_keys(cfg: Any, key: jax.Array | None) -> list:
    """A key for the dropout before each layer, and after the last; None without dropout."""
    if key is None or not cfg.dropout:
        return [None] * (cfg.n_layers + 1)
    return list(jax.random.split(key, cfg.n_layers + 1))


def dropped(cfg: Any, x: jax.Array, key: jax.Array | None) -> jax.Array:
    """x after dropout; without a key, x."""
    if key is None:
        return x
    kept = jax.random.bernoulli(key, 1 - cfg.dropout, x.shape)
    return jnp.where(kept, x / (1 - cfg.dropout), 0).astype(x.dtype)


def kernel_of(cfg: Any, linear: dict) -> jax.Array:
    """A kernel in the type of the computation, whole on each device."""
    return constrain(linear["kernel"].astype(cfg.dtype), None, None)


def inside(cfg: Any, layer: dict, shape: tuple[int, int]) -> tuple[dict, dict]:
    """(kernels, what is added to their products [T, B, ...]) inside the recurrence of a layer."""
    within = {name: layer[name] for name in CELLS[cfg.cell].kernels}
    biases = {name: of["bias"] for name, of in within.items() if "bias" in of}
    added = {name: jnp.broadcast_to(bias, (*shape, len(bias))) for name, bias in biases.items()}
    return {name: kernel_of(cfg, of) for name, of in within.items()}, added


def head(cfg: Any, params: dict) -> dict:
    """The parameters of the head, or the embedding if it is tied."""
    name = "embed" if cfg.tie_embeddings else "head"
    return {name: params[name]}


def logits(cfg: Any, head: dict, x: jax.Array) -> jax.Array:
    """Logits [..., V], float32, of what the head reads [..., R]."""
    kernel_RV = head["embed"]["embedding"].T if cfg.tie_embeddings else head["head"]["kernel"]
    return multiplied(x, kernel_RV.astype(cfg.dtype), FLOAT, "vocab", 0)
