"""Ablations: how the loss of a decoder changes when heads or neurons are switched off.

A zero ablation replaces an activation by 0 at every place. A mean ablation replaces it by its mean
over the places of the text, which keeps the part of it that is the same everywhere.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from model.transformer import family as decoder
from model.transformer.config import ModelConfig

NUMBERS = 1 << 26  # activations in memory at one time, roughly
SITES = {"heads": "attention", "neurons": "mlp"}  # their module


def units(cfg: ModelConfig, site: str) -> tuple[int, ...]:
    """(units of a layer, and the width of each if it is a vector): (H, C) of heads, (F,)."""
    return (cfg.n_heads, cfg.head_dim) if site == "heads" else (cfg.d_ff,)


def edits(site: str, keep: jax.Array, add: jax.Array) -> dict[str, Any]:
    """The edits that turn activations x [L, B, T, …] of a site into keep * x + add."""
    return {"blocks": {SITES[site]: {site: {"keep": keep, "add": add}}}}


def switched_off(
    cfg: ModelConfig, site: str, layer: jax.Array, unit: jax.Array, value: jax.Array
) -> dict[str, Any]:
    """The edits that set one unit of one layer to a value, [C] for a head, [] for a neuron."""
    count, *width = units(cfg, site)
    keep = jnp.ones((cfg.n_layers, 1, 1, count, *(1 for _ in width)))
    add = jnp.zeros((cfg.n_layers, 1, 1, count, *width))
    place = layer, 0, 0, unit
    return edits(site, keep.at[place].set(0), add.at[place].set(value))


def loss(
    cfg: ModelConfig, params: dict, tokens_T: jax.Array, first: int, changes: dict[str, Any]
) -> jax.Array:
    """Mean nats of the tokens from place `first` on, given those before each, with these edits."""
    x_1TD = decoder.edited(cfg, params, {"tokens": tokens_T[None]}, changes)
    logits_TV = decoder.logits(cfg, decoder.head(cfg, params), x_1TD)[0, first - 1 : -1]
    logp_TV = jax.nn.log_softmax(logits_TV)
    return -jnp.take_along_axis(logp_TV, tokens_T[first:, None], axis=1).mean()


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _losses(cfg, site, first, params, tokens_T, layer_N, unit_N, value_N) -> jax.Array:
    """The loss with each of N units switched off, in one program."""

    def one(layer, unit, value):
        return loss(cfg, params, tokens_T, first, switched_off(cfg, site, layer, unit, value))

    return jax.vmap(one)(layer_N, unit_N, value_N)


def losses(
    cfg: ModelConfig,
    params: dict,
    tokens_T: np.ndarray,
    first: int,
    site: str,
    places_N2: np.ndarray,
    values_N: np.ndarray,
    show: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """The loss [N] with each unit (layer, unit) alone set to its value [N, …]. NUMBERS limits the
    units in one program; `show` receives how many are done."""
    T = len(tokens_T)
    widths = cfg.vocab_size + 4 * cfg.d_model + 3 * cfg.d_ff + 2 * cfg.n_heads * T
    size = min(max(1, NUMBERS // (T * widths)), len(places_N2))
    found = []
    for begin in range(0, len(places_N2), size):
        chosen = np.arange(begin, begin + size).clip(max=len(places_N2) - 1)  # one shape for all
        (layer, unit), value = places_N2[chosen].T, values_N[chosen]
        found.append(np.asarray(_losses(cfg, site, first, params, tokens_T, layer, unit, value)))
        show(min(begin + size, len(places_N2)))
    return np.concatenate(found)[: len(places_N2)] if found else np.zeros(0)


@functools.partial(jax.jit, static_argnums=(0, 1))
def estimates(
    cfg: ModelConfig, first: int, params: dict, tokens_T: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(the estimated change in loss of the zero ablation of each neuron, of its mean ablation, and
    its mean activation), each [L, F]. To first order the change is the gradient times the change
    of the activation, summed over the places (Molchanov et al. 2017)."""
    _, seen = decoder.activations(cfg, params, {"tokens": tokens_T[None]})
    h_L1TF = seen["blocks"]["mlp"]["neurons"].astype(jnp.float32)
    changed = lambda d: loss(cfg, params, tokens_T, first, edits("neurons", jnp.ones(d.shape), d))  # noqa: E731
    slope_L1TF = jax.grad(changed)(jnp.zeros(h_L1TF.shape))
    mean_L11F = h_L1TF.mean(2, keepdims=True)
    zero_LF = -(slope_L1TF * h_L1TF).sum((1, 2))
    return zero_LF, (slope_L1TF * (mean_L11F - h_L1TF)).sum((1, 2)), mean_L11F[:, 0, 0]
