"""The attention of a decoder on one text: weights, and the mean output of each head."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from model.inspection.induction import previous_token
from model.transformer import family as decoder
from model.transformer.config import ModelConfig


def plain(cfg: ModelConfig) -> ModelConfig:
    """The same model computed by the backend that has weights, xla, and without what is only for
    training. Backends are equal up to rounding."""
    return dataclasses.replace(cfg, attention="xla", remat="none", dropout=0.0)


@functools.partial(jax.jit, static_argnums=0)
def seen(cfg: ModelConfig, params: dict, tokens_T: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the weights of each head [L, H, T, S], its mean output over the places [L, H, C])."""
    _, found = decoder.activations(cfg, params, {"tokens": tokens_T[None]})
    attention = found["blocks"]["attention"]
    heads_LHC = attention["heads"].astype(jnp.float32).mean((1, 2))
    return attention["weights"][:, 0], heads_LHC


def summary(weights_LHTS: np.ndarray) -> dict[str, np.ndarray]:
    """Of each head [L, H], means over the queries: `entropy` of its weights in nats, and the weight
    of the `first` token and of the `previous` one. The first query sees only itself and is left
    out."""
    w_LHTS = weights_LHTS[:, :, 1:].astype(np.float64)
    entropy_LHT = -(w_LHTS * np.log(np.maximum(w_LHTS, 1e-30))).sum(-1)
    return {
        "entropy": entropy_LHT.mean(-1),
        "first": w_LHTS[..., 0].mean(-1),
        "previous": np.asarray(previous_token(weights_LHTS)),
    }
