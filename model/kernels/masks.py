"""Attention masks: boolean arrays [B, T, S], True where a query sees a key."""

import jax
import jax.numpy as jnp


def everything(query_BT: jax.Array, key_BS: jax.Array) -> jax.Array:
    """Every query sees every key, as in an encoder."""
    return jnp.ones((*query_BT.shape, key_BS.shape[1]), bool)


def causal(query_BT: jax.Array, key_BS: jax.Array) -> jax.Array:
    """A query at position t sees keys at positions 0..t; position -1 marks an empty slot."""
    q_BT1, k_B1S = query_BT[:, :, None], key_BS[:, None, :]
    return (k_B1S <= q_BT1) & (k_B1S >= 0)


def same_segment(query_BT: jax.Array, key_BS: jax.Array) -> jax.Array:
    """A query sees the keys of its own document in a packed row."""
    return query_BT[:, :, None] == key_BS[:, None, :]


def within(query_BT: jax.Array, key_BS: jax.Array, window: int) -> jax.Array:
    """A query at position t sees no key before t - window + 1. Beltagy et al. 2020, section 3.1."""
    return key_BS[:, None, :] > query_BT[:, :, None] - window
