"""This file attends: multi-head, multi-query, grouped-query attention, with a key/value cache."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from model import masks, parametrization
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


@jax.custom_vjp
def attend(
    q_BKRC: jax.Array, k_BKSC: jax.Array, v_BKSC: jax.Array, mask_BRS: jax.Array
) -> jax.Array:
    """softmax(q k) v of each key/value head [B, K, R, C]. Every query row must see some key.

    The gradient is written out (Dao et al. 2022, appendix B.2) in products that transpose nothing
    of size [R, S]; differentiated automatically, XLA:CPU copies the weights to transpose them.
    """
    return _attend_forward(q_BKRC, k_BKSC, v_BKSC, mask_BRS)[0]


def _attend_forward(q_BKRC, k_BKSC, v_BKSC, mask_BRS):
    s_BKRS = jnp.einsum("bkrc,bksc->bkrs", q_BKRC, k_BKSC).astype(jnp.float32)
    s_BKRS = jnp.where(mask_BRS[:, None], s_BKRS, jnp.finfo(jnp.float32).min)
    w_BKRS = jax.nn.softmax(s_BKRS, axis=-1).astype(v_BKSC.dtype)
    o_BKRC = jnp.einsum("bkrs,bksc->bkrc", w_BKRS, v_BKSC)
    return o_BKRC, (q_BKRC, k_BKSC, v_BKSC, w_BKRS, o_BKRC)


def _attend_backward(saved, do_BKRC):
    q_BKRC, k_BKSC, v_BKSC, w_BKRS, o_BKRC = saved
    dv_BKCS = jnp.einsum("bkcr,bkrs->bkcs", do_BKRC.swapaxes(2, 3), w_BKRS)
    dw_BKRS = jnp.einsum("bkrc,bksc->bkrs", do_BKRC, v_BKSC).astype(jnp.float32)
    # The mean of dw under the weights, which the softmax subtracts, is do · o.
    mean_BKR1 = (do_BKRC.astype(jnp.float32) * o_BKRC).sum(-1, keepdims=True)
    ds_BKRS = (w_BKRS * (dw_BKRS - mean_BKR1)).astype(q_BKRC.dtype)
    dq_BKRC = jnp.einsum("bkrs,bksc->bkrc", ds_BKRS, k_BKSC)
    dk_BKCS = jnp.einsum("bkcr,bkrs->bkcs", q_BKRC.swapaxes(2, 3), ds_BKRS)
    return dq_BKRC, dk_BKCS.swapaxes(2, 3), dv_BKCS.swapaxes(2, 3), None


attend.defvjp(_attend_forward, _attend_backward)


def dot_product_attention(
    q_BTHC: jax.Array, k_BSKC: jax.Array, v_BSKC: jax.Array, mask_BTS: jax.Array, scale: float
) -> jax.Array:
    """softmax(scale q k) v per head [B, T, H, C]; a group of G = H/K query heads shares keys.

    The queries of a group are R = G*T rows of one product with their keys.
    """
    B, T, H, C = q_BTHC.shape
    K, G = k_BSKC.shape[2], H // k_BSKC.shape[2]
    q_BKGTC = (q_BTHC * scale).reshape(B, T, K, G, C).transpose(0, 2, 3, 1, 4)
    k_BKSC, v_BKSC = k_BSKC.swapaxes(1, 2), v_BSKC.swapaxes(1, 2)
    mask_BRS = jnp.tile(mask_BTS, (1, G, 1))
    o_BKRC = attend(q_BKGTC.reshape(B, K, G * T, C), k_BKSC, v_BKSC, mask_BRS)
    return o_BKRC.reshape(B, K, G, T, C).transpose(0, 3, 1, 2, 4).reshape(B, T, H, C)


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
        scale = parametrization.scores(cfg)
        o_BTHC = dot_product_attention(q_BTHC, k_BSKC, v_BSKC, mask_BTS, scale)
        out = Linear(cfg, cfg.d_model, bias, residual=True, name="out")
        return out(o_BTHC.reshape(B, T, -1)), cache
