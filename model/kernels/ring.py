"""Ring attention, for rows whose tokens are sharded over devices: Liu et al. 2023.

Each device keeps its queries while keys and values pass around the ring. The softmax over the keys
seen so far is accumulated online (Milakov & Gimelshein 2018). The backward pass goes around the
ring again, passes the gradients of keys and values along with them, and recomputes the weights (Dao
et al. 2022, appendix B.2), so no array of size [T, S] is stored. Barriers tie the positions to the
differentiated arrays. Without them XLA computes the masks of all pieces, which depend only on
positions, before the loop and keeps them.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from model.kernels import masks

KEYS = 512  # most keys in one product with the queries
LOWEST = jnp.finfo(jnp.float32).min


@dataclass(frozen=True)
class Ring:
    """The devices of the ring, and the mask; 0 means no `window`, no `softcap`."""

    axis: str | None  # mesh axis; None: one device holds all tokens
    devices: int
    window: int = 0
    softcap: float = 0.0

    def steps(self, tokens: int) -> int:
        """The number of blocks of `tokens` keys that a query may see: all, or those in the window.

        Positions increase by one along a document, so the distance between two tokens of a document
        in positions equals their distance in the row.
        """
        near = 1 + -(-(self.window - 1) // tokens)
        return min(self.devices, near) if self.window else self.devices

    def pass_on(self, block: tuple, by: int = 1) -> tuple:
        """Sends every device's block `by` devices along the ring."""
        if self.axis is None:
            return block
        pairs = [(i, (i + by) % self.devices) for i in range(self.devices)]
        return jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis, pairs), block)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def ring_attention(
    q_BKGTC: jax.Array,
    k_BKSC: jax.Array,
    v_BKSC: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array | None,
    ring: Ring,
) -> jax.Array:
    """Causal self-attention [B, K, G, T, C]: this device's queries, all devices' keys."""
    return _forward(q_BKGTC, k_BKSC, v_BKSC, positions_BT, segments_BT, ring)[0]


def _forward(q_BKGTC, k_BKSC, v_BKSC, positions_BT, segments_BT, ring):
    q_BKGTC, mine = jax.lax.optimization_barrier((q_BKGTC, (positions_BT, segments_BT)))

    def see(seen, block):
        o_BKGTC, top_BKGT, sum_BKGT = seen
        k_BKSC, v_BKSC, theirs = block
        s_BKGTS, _ = _scores(q_BKGTC, k_BKSC, mine, theirs, ring)
        new_BKGT = jnp.maximum(top_BKGT, s_BKGTS.max(-1))
        w_BKGTS = jnp.exp(s_BKGTS - new_BKGT[..., None])
        fade_BKGT = jnp.exp(top_BKGT - new_BKGT)
        add_BKGTC = _product("bkgts,bksc->bkgtc", w_BKGTS.astype(v_BKSC.dtype), v_BKSC)
        o_BKGTC = o_BKGTC * fade_BKGT[..., None] + add_BKGTC
        return (o_BKGTC, new_BKGT, sum_BKGT * fade_BKGT + w_BKGTS.sum(-1)), None

    def step(carry, _):
        seen, block = carry
        seen, _ = jax.lax.scan(see, seen, _pieces(block))
        return (seen, ring.pass_on(block)), None

    o_BKGTC = jnp.zeros(q_BKGTC.shape, jnp.float32)
    zeros_BKGT = jnp.zeros(q_BKGTC.shape[:-1], jnp.float32)
    initial = (o_BKGTC, zeros_BKGT + LOWEST, zeros_BKGT), (k_BKSC, v_BKSC, mine)
    length = ring.steps(k_BKSC.shape[2])
    ((o_BKGTC, top_BKGT, sum_BKGT), _), _ = jax.lax.scan(step, initial, length=length)
    o_BKGTC = (o_BKGTC / sum_BKGT[..., None]).astype(q_BKGTC.dtype)
    o_BKGTC = checkpoint_name(o_BKGTC, "attention")
    log_z_BKGT = checkpoint_name(top_BKGT + jnp.log(sum_BKGT), "attention")
    return o_BKGTC, (q_BKGTC, k_BKSC, v_BKSC, positions_BT, segments_BT, o_BKGTC, log_z_BKGT)


def _backward(ring, saved, do_BKGTC):
    q_BKGTC, k_BKSC, v_BKSC, positions_BT, segments_BT, o_BKGTC, log_z_BKGT = saved
    do_BKGTC, mine = jax.lax.optimization_barrier((do_BKGTC, (positions_BT, segments_BT)))
    # The softmax's gradient subtracts the weighted mean of dw, which equals do · o.
    mean_BKGT = (do_BKGTC.astype(jnp.float32) * o_BKGTC).sum(-1)

    def see(dq_BKGTC, block):
        k_BKSC, v_BKSC, theirs = block
        s_BKGTS, slope_BKGTS = _scores(q_BKGTC, k_BKSC, mine, theirs, ring)
        w_BKGTS = jnp.exp(s_BKGTS - log_z_BKGT[..., None])
        dw_BKGTS = _product("bkgtc,bksc->bkgts", do_BKGTC, v_BKSC)
        ds_BKGTS = w_BKGTS * (dw_BKGTS - mean_BKGT[..., None]) * slope_BKGTS
        ds_BKGTS = ds_BKGTS.astype(q_BKGTC.dtype)
        dk_BKSC = _product("bkgts,bkgtc->bksc", ds_BKGTS, q_BKGTC)
        dv_BKSC = _product("bkgts,bkgtc->bksc", w_BKGTS.astype(v_BKSC.dtype), do_BKGTC)
        return dq_BKGTC + _product("bkgts,bksc->bkgtc", ds_BKGTS, k_BKSC), (dk_BKSC, dv_BKSC)

    def step(carry, _):
        dq_BKGTC, block, grads = carry
        dq_BKGTC, pieces = jax.lax.scan(see, dq_BKGTC, _pieces(block))
        joined = (jnp.moveaxis(x, 0, 2).reshape(k_BKSC.shape) for x in pieces)
        grads = tuple(x + y for x, y in zip(grads, joined, strict=True))
        return (dq_BKGTC, *ring.pass_on((block, grads))), None

    zeros = jnp.zeros(k_BKSC.shape, jnp.float32)
    initial = jnp.zeros(q_BKGTC.shape, jnp.float32), (k_BKSC, v_BKSC, mine), (zeros, zeros)
    length = ring.steps(k_BKSC.shape[2])
    (dq_BKGTC, _, grads), _ = jax.lax.scan(step, initial, length=length)
    dk_BKSC, dv_BKSC = ring.pass_on(grads, -length)  # back to their owners
    dtype = q_BKGTC.dtype
    return dq_BKGTC.astype(dtype), dk_BKSC.astype(dtype), dv_BKSC.astype(dtype), None, None


ring_attention.defvjp(_forward, _backward)


def _product(expression: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(expression, x, y, preferred_element_type=jnp.float32)


def _scores(q_BKGTC, k_BKSC, mine, theirs, ring) -> tuple[jax.Array, jax.Array | float]:
    """Scores [B, K, G, T, S], LOWEST where masked, and the slope of the softcap."""
    s_BKGTS, slope = _product("bkgtc,bksc->bkgts", q_BKGTC, k_BKSC), 1.0
    if ring.softcap:
        t_BKGTS = jnp.tanh(s_BKGTS / ring.softcap)
        s_BKGTS, slope = ring.softcap * t_BKGTS, 1 - jnp.square(t_BKGTS)
    (positions_BT, segments_BT), (positions_BS, segments_BS) = mine, theirs
    mask_BTS = masks.causal(positions_BT, positions_BS)
    if ring.window:
        mask_BTS &= masks.within(positions_BT, positions_BS, ring.window)
    if segments_BT is not None:
        mask_BTS &= masks.same_segment(segments_BT, segments_BS)
    return jnp.where(mask_BTS[:, None, None], s_BKGTS, LOWEST), slope


def _pieces(block: tuple) -> tuple:
    """Cuts a block of keys, values, (positions, segments) into N pieces of at most KEYS keys, along
    a new first axis [N, …].
    """
    k_BKSC, v_BKSC, theirs = block
    S = k_BKSC.shape[2]
    size = next(n for n in range(min(KEYS, S), 0, -1) if S % n == 0)

    def cut(x, axis):
        shape = *x.shape[:axis], S // size, size, *x.shape[axis + 1 :]
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    return cut(k_BKSC, 2), cut(v_BKSC, 2), jax.tree.map(lambda x: cut(x, 1), theirs)
