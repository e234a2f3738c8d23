"""Multi-head, multi-query and grouped-query attention, with a key/value cache."""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.kernels import backends, masks
from model.partitioning import constrain, ways
from model.transformer import parametrization
from model.transformer.config import ModelConfig
from model.transformer.hooks import hooked, kept, watched
from model.transformer.layers import Linear, Norm
from model.transformer.positions import alibi, angles, rotary


@flax.struct.dataclass
class Cache:
    """Keys and values seen so far. Slot s of row b holds position positions_BS[b, s]; -1 is empty.

    The head axis comes before the slot axis, as in the product with the queries; otherwise every
    decoding step would transpose the cache. `length` is the maximum number of tokens of the
    context. A layer with a window needs fewer slots.
    """

    k_BKSC: jax.Array
    v_BKSC: jax.Array
    positions_BS: jax.Array
    length: int = flax.struct.field(pytree_node=False)


def empty_cache(cfg: ModelConfig, layer: int, batch: int, length: int, at_once: int = 1) -> Cache:
    """The cache of a layer for a context of `length` tokens, with `at_once` new tokens per call.

    A layer with a window keeps the keys that the first of the new tokens sees, in a ring buffer of
    window + at_once - 1 slots.
    """
    slots = min(length, cfg.window + at_once - 1) if cfg.is_local(layer) else length
    k_BKSC = jnp.zeros((batch, cfg.n_kv_heads, slots, cfg.head_dim), cfg.dtype)
    return Cache(k_BKSC, k_BKSC, jnp.full((batch, slots), -1, jnp.int32), length)


def write(cache: Cache, k_BTKC: jax.Array, v_BTKC: jax.Array, positions_BT: jax.Array) -> Cache:
    """The cache with T more tokens, each in slot (position mod S). If T > S, the last S are kept.

    Position -1 is padding and is not written.
    """
    S = cache.positions_BS.shape[1]
    row_B1 = jnp.arange(k_BTKC.shape[0])[:, None]
    kept_BT = (positions_BT >= 0) & (positions_BT > positions_BT.max(1, keepdims=True) - S)
    slot_BT = jnp.where(kept_BT, positions_BT % S, S)
    return cache.replace(
        k_BKSC=cache.k_BKSC.at[row_B1, :, slot_BT].set(k_BTKC, mode="drop"),
        v_BKSC=cache.v_BKSC.at[row_B1, :, slot_BT].set(v_BTKC, mode="drop"),
        positions_BS=cache.positions_BS.at[row_B1, slot_BT].set(positions_BT, mode="drop"),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend(
    q_BKRC: jax.Array,
    k_BKSC: jax.Array,
    v_BKSC: jax.Array,
    mask_BRS: jax.Array,
    bias_BKRS: jax.Array | None,
    softcap: float,
) -> jax.Array:
    """softmax(softcap(q k) + bias) v of each key/value head [B, K, R, C].

    Every query must see at least one key. The first axis of `bias` may be 1. softcap = 0 means no
    softcap. The gradient is written by hand (Dao et al. 2022, appendix B.2) so that no product
    transposes an array of size [R, S]. With automatic differentiation XLA:CPU copies the weights to
    transpose them.
    """
    return _attend_forward(q_BKRC, k_BKSC, v_BKSC, mask_BRS, bias_BKRS, softcap)[0]


def _attend_forward(q_BKRC, k_BKSC, v_BKSC, mask_BRS, bias_BKRS, softcap):
    s_BKRS, t_BKRS = _scores(q_BKRC, k_BKSC, bias_BKRS, softcap)
    w_BKRS = _masked_softmax(s_BKRS, mask_BRS).astype(v_BKSC.dtype)
    o_BKRC = checkpoint_name(jnp.einsum("bkrs,bksc->bkrc", w_BKRS, v_BKSC), "attention")
    # Of the bias, only whether there is one and its first axis are kept, without its numbers.
    biased = None if bias_BKRS is None else bias_BKRS[:, :0]
    return o_BKRC, (q_BKRC, k_BKSC, v_BKSC, w_BKRS, o_BKRC, t_BKRS, biased)


def _scores(q_BKRC, k_BKSC, bias_BKRS, softcap) -> tuple[jax.Array, jax.Array | None]:
    """softcap(q k) + bias, float32, and the tanh of the softcap if there is one."""
    s_BKRS = jnp.einsum("bkrc,bksc->bkrs", q_BKRC, k_BKSC).astype(jnp.float32)
    t_BKRS = jnp.tanh(s_BKRS / softcap) if softcap else None
    s_BKRS = s_BKRS if t_BKRS is None else softcap * t_BKRS
    return s_BKRS if bias_BKRS is None else s_BKRS + bias_BKRS, t_BKRS


def _masked_softmax(s_BKRS, mask_BRS) -> jax.Array:
    """The softmax over the keys that a query sees."""
    s_BKRS = jnp.where(mask_BRS[:, None], s_BKRS, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(s_BKRS, axis=-1)


def _attend_backward(softcap, saved, do_BKRC):
    q_BKRC, k_BKSC, v_BKSC, w_BKRS, o_BKRC, t_BKRS, biased = saved
    dv_BKCS = jnp.einsum("bkcr,bkrs->bkcs", do_BKRC.swapaxes(2, 3), w_BKRS)
    dw_BKRS = jnp.einsum("bkrc,bksc->bkrs", do_BKRC, v_BKSC).astype(jnp.float32)
    # The softmax's gradient subtracts the weighted mean of dw, which equals do · o.
    mean_BKR1 = (do_BKRC.astype(jnp.float32) * o_BKRC).sum(-1, keepdims=True)
    ds_BKRS = w_BKRS * (dw_BKRS - mean_BKR1)
    dbias_BKRS = None
    if biased is not None:
        dbias_BKRS = ds_BKRS.astype(biased.dtype)
        dbias_BKRS = dbias_BKRS.sum(0, keepdims=True) if len(biased) == 1 else dbias_BKRS
    ds_BKRS = ds_BKRS if t_BKRS is None else ds_BKRS * (1 - jnp.square(t_BKRS))
    ds_BKRS = ds_BKRS.astype(q_BKRC.dtype)
    dq_BKRC = jnp.einsum("bkrs,bksc->bkrc", ds_BKRS, k_BKSC)
    dk_BKCS = jnp.einsum("bkcr,bkrs->bkcs", q_BKRC.swapaxes(2, 3), ds_BKRS)
    return dq_BKRC, dk_BKCS.swapaxes(2, 3), dv_BKCS.swapaxes(2, 3), None, dbias_BKRS


attend.defvjp(_attend_forward, _attend_backward)


def dot_product_attention(
    q_BTHC: jax.Array,
    k_BSKC: jax.Array,
    v_BSKC: jax.Array,
    mask_BTS: jax.Array,
    scale: float,
    softcap: float = 0.0,
    bias_BHTS: jax.Array | None = None,
) -> jax.Array:
    """softmax(softcap(scale q k) + bias) v [B, T, H, C]. G = H/K query heads share keys."""
    B, T, H, C = q_BTHC.shape
    K, G = k_BSKC.shape[2], H // k_BSKC.shape[2]
    grouped = _grouped(q_BTHC, (k_BSKC, v_BSKC), mask_BTS, scale, bias_BHTS)
    q_BKRC, (k_BKSC, v_BKSC), mask_BRS, bias_BKRS = grouped
    o_BKRC = attend(q_BKRC, k_BKSC, v_BKSC, mask_BRS, bias_BKRS, softcap)
    return o_BKRC.reshape(B, K, G, T, C).transpose(0, 3, 1, 2, 4).reshape(B, T, H, C)


def _grouped(q_BTHC, read_BSKC: tuple, mask_BTS, scale, bias_BHTS):
    """Scaled queries, the arrays of keys (and values) that they read, mask and bias, all by
    key/value head. The R = G*T queries of a group form one product with their keys."""
    B, T, H, C = q_BTHC.shape
    K, G = read_BSKC[0].shape[2], H // read_BSKC[0].shape[2]
    q_BKGTC = (q_BTHC * scale).reshape(B, T, K, G, C).transpose(0, 2, 3, 1, 4)
    read_BKSC = tuple(x_BSKC.swapaxes(1, 2) for x_BSKC in read_BSKC)
    mask_BRS = jnp.tile(mask_BTS, (1, G, 1))
    bias_BKRS = None if bias_BHTS is None else bias_BHTS.reshape(B, K, G * T, -1)
    return q_BKGTC.reshape(B, K, G * T, C), read_BKSC, mask_BRS, bias_BKRS


def scores_and_weights(
    q_BTHC: jax.Array,
    k_BSKC: jax.Array,
    mask_BTS: jax.Array,
    scale: float,
    softcap: float = 0.0,
    bias_BHTS: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """What `dot_product_attention` multiplies the values by: softcap(scale q k) + bias, and its
    softmax over the keys that the mask lets a query see, each [B, H, T, S], float32."""
    B, T, H, _ = q_BTHC.shape
    grouped = _grouped(q_BTHC, (k_BSKC,), mask_BTS, scale, bias_BHTS)
    q_BKRC, (k_BKSC,), mask_BRS, bias_BKRS = grouped
    s_BKRS, _ = _scores(q_BKRC, k_BKSC, bias_BKRS, softcap)
    w_BKRS = _masked_softmax(s_BKRS, mask_BRS)
    return s_BKRS.reshape(B, H, T, -1), w_BKRS.reshape(B, H, T, -1)


def attention_spec(
    cfg: ModelConfig, local: bool = False, causal: bool = True
) -> backends.AttentionSpec:
    """The AttentionSpec of a layer; `local`: the layer has the window."""
    return backends.AttentionSpec(
        scale=parametrization.scores(cfg),
        head_dim=cfg.head_dim,
        dtype=cfg.dtype,
        window=cfg.window if local else 0,
        softcap=cfg.attention_softcap,
        causal=causal,
        bias=cfg.positions == "alibi",
    )


class Attention(nn.Module):
    """Self-attention (Vaswani et al. 2017; MQA Shazeer 2019; GQA Ainslie et al. 2023).

    In a `local` layer a query sees the last `cfg.window` keys only. If it is not `causal`, which
    has no cache and no window, a query sees later keys too.
    """

    cfg: ModelConfig
    local: bool = False
    causal: bool = True

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        cache: Cache | None = None,
        prefill: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        """The output [B, T, D], and the cache, if any, with these tokens added.

        `prefill`: the cache is empty, so the tokens see only one another.
        """
        cfg, spec = self.cfg, attention_spec(self.cfg, self.local, self.causal)
        T = x_BTD.shape[1]
        q_BTHC, k_BTKC, v_BTKC = self._project(x_BTD)
        if cfg.positions == "rotary":
            length = T if cache is None else cache.length
            angle_BTR, factor = angles(cfg, positions_BT, self.local, length)
            q_BTHC = rotary(q_BTHC, angle_BTR, factor, cfg.rope_layout)
            k_BTKC = rotary(k_BTKC, angle_BTR, factor, cfg.rope_layout)
        if cache is None and (backend := backends.choose(cfg.attention, spec, T)) != "xla":
            rows = q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT
            return self._out(backends.attend_rows(backend, *rows, spec)), None
        k_BSKC, v_BSKC, key_positions_BS = k_BTKC, v_BTKC, positions_BT
        if cache is not None:
            cache = write(cache, k_BTKC, v_BTKC, positions_BT)
            if not prefill:
                k_BSKC, v_BSKC = cache.k_BKSC.swapaxes(1, 2), cache.v_BKSC.swapaxes(1, 2)
                key_positions_BS = cache.positions_BS
        mask_BTS = masks.everything(positions_BT, key_positions_BS)
        if spec.causal:
            mask_BTS = masks.causal(positions_BT, key_positions_BS)
        if spec.window:
            mask_BTS &= masks.within(positions_BT, key_positions_BS, spec.window)
        if segments_BT is not None:
            mask_BTS &= masks.same_segment(segments_BT, segments_BT)
        bias_BHTS = None
        if spec.bias:
            bias_BHTS = alibi(positions_BT, key_positions_BS, cfg.n_heads)
        how = mask_BTS, spec.scale, spec.softcap, bias_BHTS
        if watched(self):
            s_BHTS, w_BHTS = scores_and_weights(q_BTHC, k_BSKC, *how)
            kept(self, "scores", s_BHTS)
            kept(self, "weights", w_BHTS)
        o_BTHC = dot_product_attention(q_BTHC, k_BSKC, v_BSKC, *how)
        return self._out(o_BTHC), cache

    def _out(self, o_BTHC: jax.Array) -> jax.Array:
        """The output projection of the heads' outputs [B, T, D]."""
        o_BTHC = hooked(self, "heads", o_BTHC)
        bias = self.cfg.attention_bias and self.cfg.out_bias
        out = Linear(self.cfg, self.cfg.d_model, bias, residual=True, name="out")
        return out(o_BTHC.reshape(*o_BTHC.shape[:2], -1))

    def _project(self, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [B, T, H, C], keys and values [B, T, K, C], before rotary positions."""
        cfg, tensor = self.cfg, ways("heads")

        def project(name, heads):
            x = Linear(cfg, heads * cfg.head_dim, cfg.attention_bias, name=name)(x_BTD)
            x = x.reshape(*x_BTD.shape[:2], heads, cfg.head_dim)
            return constrain(x, "batch", "seq", "heads", None) if heads % tensor == 0 else x

        q_BTHC, k_BTKC = project("query", cfg.n_heads), project("key", cfg.n_kv_heads)
        if cfg.qk_norm:
            q_BTHC, k_BTKC = (
                Norm(cfg, name="query_norm")(q_BTHC),
                Norm(cfg, name="key_norm")(k_BTKC),
            )
        return q_BTHC, k_BTKC, project("value", cfg.n_kv_heads)
