"""Self-attention over whole rows, as in training: one function, four backends.

    xla     full [T, S] scores, on any platform, for every variant of attention. It is the code in
            model/transformer/attention.py, not a kernel
    splash  a Pallas kernel for TPUs that skips masked blocks (splash.py). When a row's tokens are
            sharded, each device gathers all keys and values
    cudnn   cuDNN's fused kernel for GPUs
    ring    ring attention (ring.py): for rows whose tokens are sharded, on any platform; on TPUs
            for rows whose keys and values do not fit on one device

`auto` picks the first backend that supports the attention: the platform's kernel, then ring if
tokens are sharded, then xla.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from model.kernels import masks
from model.kernels.ring import Ring, ring_attention
from model.partitioning import mesh_axes, platform, spec, ways

LANES = 128  # of a TPU's vector unit; splash's block sizes are multiples of it


@dataclass(frozen=True)
class AttentionSpec:
    """The attention of a layer, as a kernel needs to know it."""

    scale: float  # multiplies q·k
    head_dim: int
    dtype: str = "float32"  # of queries, keys and values
    window: int = 0  # keys that a query sees, including its own position; 0: no limit
    softcap: float = 0.0  # c: scores become c tanh(scores / c); 0: none
    causal: bool = True  # a query sees no later key
    bias: bool = False  # a bias is added to the scores


def _sequence_axis() -> tuple[str | None, int]:
    """The mesh axis that shards the tokens of a row, and its size; (None, 1) if none does."""
    return (mesh_axes("seq")[0], ways("seq")) if ways("seq") > 1 else (None, 1)


def splash(q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT, attention: AttentionSpec):
    from model.kernels.splash import Spread, splash_attention  # a slow import

    spread = Spread(*_sequence_axis())
    rows = q_BTHC * attention.scale, k_BTKC, v_BTKC, segments_BT
    return splash_attention(*rows, attention.window, attention.softcap, spread)


def cudnn(q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT, attention: AttentionSpec):
    """cuDNN's kernel; on other platforms, for tests, JAX's reference implementation."""
    same = None if segments_BT is None else masks.same_segment(segments_BT, segments_BT)[:, None]
    o_BTHC = jax.nn.dot_product_attention(
        q_BTHC,
        k_BTKC,
        v_BTKC,
        mask=same,
        scale=attention.scale,
        is_causal=True,
        local_window_size=(attention.window - 1, 0) if attention.window else None,
        implementation="cudnn" if platform() == "gpu" else "xla",
    )
    return checkpoint_name(o_BTHC, "attention")


def ring(q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT, attention: AttentionSpec):
    B, T, H, C = q_BTHC.shape
    K = k_BTKC.shape[2]
    devices = Ring(*_sequence_axis(), attention.window, attention.softcap)
    q_BKGTC = (q_BTHC * attention.scale).reshape(B, T, K, H // K, C).transpose(0, 2, 3, 1, 4)
    k_BKTC, v_BKTC = k_BTKC.swapaxes(1, 2), v_BTKC.swapaxes(1, 2)
    o_BKGTC = ring_attention(q_BKGTC, k_BKTC, v_BKTC, positions_BT, segments_BT, devices)
    return o_BKGTC.transpose(0, 3, 1, 2, 4).reshape(B, T, H, C)


KERNELS: dict[str, Callable[..., jax.Array]] = {"ring": ring, "splash": splash, "cudnn": cudnn}


def _unsupported_by_all(attention: AttentionSpec) -> dict[str, bool]:
    return {
        "model.positions adds a bias to the scores": attention.bias,
        "attention is not causal": not attention.causal,
    }


# For each kernel, the reasons why it may not support rows of `length` tokens: {reason: whether it
# applies}. The first reason that applies is reported.
UNFIT: dict[str, Callable[[AttentionSpec, int], dict[str, bool]]] = {
    "ring": lambda attention, length: (
        _unsupported_by_all(attention)
        | {
            f"{length} tokens are not a multiple of mesh.sequence={ways('seq')}": (
                length % ways("seq") > 0
            ),
        }
    ),
    "splash": lambda attention, length: (
        _unsupported_by_all(attention)
        | {
            f"{length} tokens are not a multiple of {_multiple()} (mesh.sequence={ways('seq')})": (
                length % _multiple() > 0
            ),
        }
    ),
    "cudnn": lambda attention, length: (
        _unsupported_by_all(attention)
        | {
            f"model.attention_softcap={attention.softcap} is not supported": attention.softcap > 0,
            f"model.dtype={attention.dtype!r} is not bfloat16": platform() == "gpu"
            and attention.dtype != "bfloat16",
            f"model.head_dim={attention.head_dim} is not a multiple of 8 up to 128": (
                attention.head_dim % 8 > 0 or attention.head_dim > 128
            ),
            f"mesh.sequence={ways('seq')} shards the tokens of a row": ways("seq") > 1,
        }
    ),
}
BEST = {"tpu": ["splash"], "gpu": ["cudnn"]}


def _multiple() -> int:
    """Splash supports row lengths that are multiples of this number: a device computes two parts of
    a sharded row.
    """
    return LANES * (2 * ways("seq") if ways("seq") > 1 else 1)


def choose(backend: str, attention: AttentionSpec, length: int) -> str:
    """The backend for rows of `length` tokens: `backend` itself, or the one that `auto` picks.

    Raises ValueError if the given backend does not support this attention.
    """
    if length == 1:
        return "xla"  # parameters are initialised with one token, which no kernel supports
    ring = ["ring"] * (ways("seq") > 1)
    candidates = [backend] if backend != "auto" else [*BEST.get(platform(), []), *ring]
    for candidate in candidates:
        reasons = UNFIT.get(candidate, lambda *_: {})(attention, length)
        reason = next((text for text, holds in reasons.items() if holds), None)
        if not reason:
            return candidate
        if backend != "auto":
            raise ValueError(f"model.attention={backend!r} cannot run: {reason}; use xla or auto")
    return "xla"


def attend_rows(
    backend: str,
    q_BTHC: jax.Array,
    k_BTKC: jax.Array,
    v_BTKC: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array | None,
    attention: AttentionSpec,
) -> jax.Array:
    """Causal self-attention [B, T, H, C] by one of KERNELS; on a mesh each device computes its own
    rows, heads and tokens. Positions must increase by one along each segment.

    If the mesh shards heads more ways than there are key/value heads, those are repeated.
    """
    heads = ways("heads")
    if k_BTKC.shape[2] % heads:
        repeats = heads // k_BTKC.shape[2]
        k_BTKC, v_BTKC = jnp.repeat(k_BTKC, repeats, 2), jnp.repeat(v_BTKC, repeats, 2)
    arguments = q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT
    kernel = lambda *arrays: KERNELS[backend](*arrays, attention)  # noqa: E731
    if not (mesh_axes("batch") or mesh_axes("heads") or mesh_axes("seq")):
        return kernel(*arguments)
    rows: PartitionSpec = spec("batch", "seq")
    per_head = spec("batch", "seq", "heads", None)
    shard = jax.shard_map(
        kernel,
        in_specs=(per_head, per_head, per_head, rows, rows),
        out_specs=per_head,
        check_vma=False,
    )
    return shard(*arguments)
