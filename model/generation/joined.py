"""A decoder that was trained on joined pairs, with the `start` and `step` of an encoder–decoder."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from model.generation.sample import decode, prefill
from model.transformer.config import ModelConfig


def start(
    cfg: ModelConfig, params: dict, batch: Mapping[str, jax.Array], length: int
) -> dict[str, jax.Array]:
    """The cache of a batch of sources, `source` [B, S] with `source_segments` 1 where it is not
    padding. The first token that `step` gets is the one between the two sides."""
    source_BS, real_BS = batch["source"], batch["source_segments"] > 0
    positions_BS = jnp.where(real_BS, jnp.arange(source_BS.shape[1]), -1)
    most = min(cfg.context_length, source_BS.shape[1] + length)
    _, caches = prefill(params, cfg, source_BS, positions_BS, most)
    return {"caches": caches, "next_B": real_BS.sum(-1)}


def step(
    cfg: ModelConfig, params: dict, cache: dict, tokens_B: jax.Array
) -> tuple[jax.Array, dict]:
    """(logits [B, V] after one more token of each row, the cache with it in)."""
    at_B = cache["next_B"]
    logits_B1V, caches = decode(params, cfg, tokens_B[:, None], at_B[:, None], cache["caches"])
    return logits_B1V[:, 0], {"caches": caches, "next_B": at_B + 1}
