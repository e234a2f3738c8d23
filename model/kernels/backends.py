"""This file computes the attention of whole rows, as in training: one function, four backends.

    xla     products of everything with everything; any platform, every variant of attention
    splash  a Pallas kernel for TPUs, which skips what the mask hides: splash.py. Where tokens of a
            row lie on several devices, each gathers the keys and values of all
    cudnn   cuDNN's kernel for GPUs, the same idea
    ring    for rows whose tokens lie on several devices, on any platform, and on TPUs for rows
            whose keys and values no device can hold: model/kernels/ring.py

`auto` takes the platform's kernel, else the ring where tokens are spread, else xla: the first that
can do what the model asks for.
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
from model.transformer.config import ModelConfig

LANES = 128  # of a TPU's vector unit: splash's blocks are whole numbers of them


@dataclass(frozen=True)
class Sight:
    """What a query sees of the keys, and how scores are made; 0 means none."""

    scale: float
    window: int = 0
    softcap: float = 0.0


def _along() -> tuple[str | None, int]:
    """The mesh axis along which the tokens of a row lie, and its devices; (None, 1) without."""
    return (mesh_axes("seq")[0], ways("seq")) if ways("seq") > 1 else (None, 1)


def splash(q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT, sight: Sight) -> jax.Array:
    from model.kernels.splash import Spread, attention  # a slow import

    spread = Spread(*_along())
    rows = q_BTHC * sight.scale, k_BTKC, v_BTKC, segments_BT
    return attention(*rows, sight.window, sight.softcap, spread)


def cudnn(q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT, sight: Sight) -> jax.Array:
    """Elsewhere than on a GPU by JAX's reference for the same arguments: for tests."""
    same = None if segments_BT is None else masks.same_segment(segments_BT, segments_BT)[:, None]
    o_BTHC = jax.nn.dot_product_attention(
        q_BTHC,
        k_BTKC,
        v_BTKC,
        mask=same,
        scale=sight.scale,
        is_causal=True,
        local_window_size=(sight.window - 1, 0) if sight.window else None,
        implementation="cudnn" if platform() == "gpu" else "xla",
    )
    return checkpoint_name(o_BTHC, "attention")


def ring(q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT, sight: Sight) -> jax.Array:
    B, T, H, C = q_BTHC.shape
    K = k_BTKC.shape[2]
    around = Ring(*_along(), sight.window, sight.softcap)
    q_BKGTC = (q_BTHC * sight.scale).reshape(B, T, K, H // K, C).transpose(0, 2, 3, 1, 4)
    k_BKTC, v_BKTC = k_BTKC.swapaxes(1, 2), v_BTKC.swapaxes(1, 2)
    o_BKGTC = ring_attention(q_BKGTC, k_BKTC, v_BKTC, positions_BT, segments_BT, around)
    return o_BKGTC.transpose(0, 3, 1, 2, 4).reshape(B, T, H, C)


KERNELS: dict[str, Callable] = {"ring": ring, "splash": splash, "cudnn": cudnn}
# What keeps a kernel from computing this model's rows, in words. Asked in this order.
UNFIT: dict[str, Callable[[ModelConfig, int], dict[str, bool]]] = {
    "ring": lambda cfg, length: {
        "model.positions='alibi' adds a bias": cfg.positions == "alibi",
        f"{length} tokens are no multiple of mesh.sequence={ways('seq')}": length % ways("seq") > 0,
    },
    "splash": lambda cfg, length: {
        "model.positions='alibi' adds a bias": cfg.positions == "alibi",
        f"{length} tokens are no multiple of {_multiple()} (mesh.sequence={ways('seq')})": (
            length % _multiple() > 0
        ),
    },
    "cudnn": lambda cfg, length: {
        "model.positions='alibi' adds a bias": cfg.positions == "alibi",
        f"model.attention_softcap={cfg.attention_softcap} is unknown to it": (
            cfg.attention_softcap > 0
        ),
        f"model.dtype={cfg.dtype!r} is not bfloat16": platform() == "gpu"
        and cfg.dtype != "bfloat16",
        f"model.head_dim={cfg.head_dim} is no multiple of 8 up to 128": cfg.head_dim % 8 > 0
        or cfg.head_dim > 128,
        f"mesh.sequence={ways('seq')} spreads the tokens": ways("seq") > 1,
    },
}
BEST = {"tpu": ["splash"], "gpu": ["cudnn"]}


def _multiple() -> int:
    """What splash needs the tokens of a row to be a multiple of: each device computes two parts."""
    return LANES * (2 * ways("seq") if ways("seq") > 1 else 1)


def choose(cfg: ModelConfig, length: int) -> str:
    """The backend for rows of `length` tokens; ValueError where the one asked for cannot."""
    if length == 1:
        return "xla"  # parameters are initialised with one token, which no kernel takes
    ring = ["ring"] * (ways("seq") > 1)
    asked = [cfg.attention] if cfg.attention != "auto" else [*BEST.get(platform(), []), *ring]
    for backend in asked:
        reasons = UNFIT.get(backend, lambda *_: {})(cfg, length)
        reason = next((text for text, holds in reasons.items() if holds), None)
        if not reason:
            return backend
        if cfg.attention != "auto":
            raise ValueError(f"model.attention={backend!r} cannot: {reason}; use xla, or auto")
    return "xla"


def attend_rows(
    backend: str,
    q_BTHC: jax.Array,
    k_BTKC: jax.Array,
    v_BTKC: jax.Array,
    positions_BT: jax.Array,
    segments_BT: jax.Array | None,
    sight: Sight,
) -> jax.Array:
    """Causal self-attention [B, T, H, C] by one of KERNELS; on a mesh each device computes its own
    rows, heads and tokens. Positions must grow by one along each segment.

    Fewer key/value heads than parts are repeated so that there is one for each.
    """
    heads = ways("heads")
    if k_BTKC.shape[2] % heads:
        repeats = heads // k_BTKC.shape[2]
        k_BTKC, v_BTKC = jnp.repeat(k_BTKC, repeats, 2), jnp.repeat(v_BTKC, repeats, 2)
    arguments = q_BTHC, k_BTKC, v_BTKC, positions_BT, segments_BT
    kernel = lambda *arrays: KERNELS[backend](*arrays, sight)  # noqa: E731
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
