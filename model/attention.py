"""This file attends: multi-head, multi-query, grouped-query attention, with a key/value cache."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from model import masks
from model.config import ModelConfig
from model.layers import Linear
from model.positions import rotary


@flax.struct.dataclass
class Cache:
    """Keys and values seen so far: slot s of row b holds position positions_BS[b, s], or -1."""

    k_BSKC: jax.Array
    v_BSKC: jax.Array
    positions_BS: jax.Array


def empty_cache(cfg: ModelConfig, batch: int, length: int) -> Cache:
    """One layer's cache of `length` slots."""
    k_BSKC = jnp.zeros((batch, length, cfg.n_kv_heads, cfg.head_dim), cfg.dtype)
    return Cache(k_BSKC, k_BSKC, jnp.full((batch, length), -1, jnp.int32))


def write(cache: Cache, k_BTKC: jax.Array, v_BTKC: jax.Array, positions_BT: jax.Array) -> Cache:
    """The cache with T more tokens, each in slot position mod S."""
    row_B1 = jnp.arange(k_BTKC.shape[0])[:, None]
    slot_BT = positions_BT % cache.positions_BS.shape[1]
    return Cache(
        cache.k_BSKC.at[row_B1, slot_BT].set(k_BTKC),
        cache.v_BSKC.at[row_B1, slot_BT].set(v_BTKC),
        cache.positions_BS.at[row_B1, slot_BT].set(positions_BT),
    )


def dot_product_attention(
    q_BTHC: jax.Array, k_BSKC: jax.Array, v_BSKC: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
    """softmax(q k / sqrt(C)) v per head [B, T, H, C]; query heads share keys in groups of H/K."""
    B, T, H, C = q_BTHC.shape
    q_BTKGC = (q_BTHC * C**-0.5).reshape(B, T, k_BSKC.shape[2], -1, C)
    s_BKGTS = jnp.einsum("btkgc,bskc->bkgts", q_BTKGC, k_BSKC).astype(jnp.float32)
    s_BKGTS = jnp.where(mask_BTS[:, None, None], s_BKGTS, jnp.finfo(jnp.float32).min)
    w_BKGTS = jax.nn.softmax(s_BKGTS, axis=-1).astype(v_BSKC.dtype)
    return jnp.einsum("bkgts,bskc->btkgc", w_BKGTS, v_BSKC).reshape(B, T, H, C)


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017; MQA Shazeer 2019; GQA Ainslie et al. 2023)."""

    cfg: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        cfg, bias = self.cfg, self.cfg.attention_bias
        B, T, _ = x_BTD.shape

        def project(name, heads):
            return Linear(cfg, heads * cfg.head_dim, bias, name=name)(x_BTD).reshape(
                B, T, heads, -1
            )

        q_BTHC, k_BTKC = project("query", cfg.n_heads), project("key", cfg.n_kv_heads)
        v_BTKC = project("value", cfg.n_kv_heads)
        if cfg.positions == "rotary":
            q_BTHC = rotary(q_BTHC, positions_BT, cfg.rope_theta)
            k_BTKC = rotary(k_BTKC, positions_BT, cfg.rope_theta)
        if cache is None:
            k_BSKC, v_BSKC, key_positions_BS = k_BTKC, v_BTKC, positions_BT
        else:
            cache = write(cache, k_BTKC, v_BTKC, positions_BT)
            k_BSKC, v_BSKC, key_positions_BS = cache.k_BSKC, cache.v_BSKC, cache.positions_BS
        mask_BTS = masks.causal(positions_BT, key_positions_BS)
        if segments_BT is not None:
            mask_BTS &= masks.same_segment(segments_BT, segments_BT)
        o_BTHC = dot_product_attention(q_BTHC, k_BSKC, v_BSKC, mask_BTS)
        out = Linear(cfg, cfg.d_model, bias, residual=True, name="out")
        return out(o_BTHC.reshape(B, T, -1)), cache
