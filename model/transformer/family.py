"""The decoder-only Transformer as a model family (model/families.py states the interface)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from model import classes
from model.generation.sample import DECODER as READER
from model.generation.sample import sample
from model.generation.samplers import Sampler
from model.kernels import backends
from model.partitioning import require_divided
from model.transformer import count
from model.transformer.attention import attention_spec
from model.transformer.config import ModelConfig as Config
from model.transformer.config import derive as derive
from model.transformer.count import parameters as parameters
from model.transformer.decoder import Decoder
from model.transformer.decoder import head_of as head
from model.transformer.decoder import init as init_decoder
from model.transformer.decoder import logits as logits
from model.transformer.decoder import shapes as shapes
from model.transformer.hooks import ACTIVATIONS, EDITS
from model.transformer.update_scales import update_scales as update_scales

__all__ = ["READER", "Config", "derive", "head", "logits", "parameters", "shapes", "update_scales"]

INPUTS = ("tokens",)  # positions and segments are used too if a batch has them
PARAMETER_AXES = (
    (r"^embed/embedding$", ("vocab", "embed")),
    (r"^position/embedding$", ("position", "embed")),
    (r"^blocks/attention/(query|key|value)/kernel$", ("layer", "embed", "heads")),
    (r"^blocks/attention/(query|key|value)/bias$", ("layer", "heads")),
    (r"^blocks/attention/out/kernel$", ("layer", "heads", "embed")),
    (r"^blocks/mlp/(up|gate)/kernel$", ("layer", "embed", "mlp")),
    (r"^blocks/mlp/(up|gate)/bias$", ("layer", "mlp")),
    (r"^blocks/mlp/down/kernel$", ("layer", "mlp", "embed")),
    (r"^blocks/(attention/out|mlp/down)/bias$", ("layer", "vector")),
    (r"^blocks/(attention|mlp)_(post_)?norm/(scale|bias)$", ("layer", "vector")),
    (r"^blocks/attention/(query|key)_norm/(scale|bias)$", ("layer", "vector")),
    (r"^final_norm/(scale|bias)$", ("vector",)),
    (r"^head/kernel$", ("embed", "vocab")),
    *classes.PARAMETER_AXES,
)
# Stacked kernels [L, in, out] are L matrices.
MATRICES = (
    (r"^blocks/.*kernel$", (1, 2)),
    (r"^(head|classes)/kernel$", None),
    (r"(embedding|scale|bias)$", None),
)

HEADS = (classes.PATHS,)
LINEARS = r"^blocks/.*kernel$"


def init(cfg: Config, key: jax.Array) -> dict:
    """Fresh float32 parameters."""
    return init_decoder(cfg, key) | classes.init(jax.random.fold_in(key, 1), cfg)


def pooled(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The state of each row's last token that is no padding [B, D], which has seen all others."""
    last_B = (batch["segments"] > 0).sum(-1) - 1
    x_BTD = hidden(cfg, params, batch, key)
    return jnp.take_along_axis(x_BTD, jnp.maximum(last_B, 0)[:, None, None], axis=1)[:, 0]


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The residual stream after the last norm [B, T, D]; with a `key`, dropout is on."""
    inputs = batch["tokens"], batch.get("positions"), batch.get("segments")
    rngs = {} if key is None else {"dropout": key}
    model = Decoder(cfg, train=key is not None)
    return model.apply({"params": params}, *inputs, rngs=rngs, method="hidden")[0]


def activations(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array]
) -> tuple[jax.Array, dict]:
    """(what `hidden` returns, the activations that model/transformer/hooks.py lists)."""
    inputs = batch["tokens"], batch.get("positions"), batch.get("segments")
    how = {"method": "hidden", "mutable": [ACTIVATIONS]}
    (x_BTD, _), seen = Decoder(cfg).apply({"params": params}, *inputs, **how)
    return x_BTD, seen[ACTIVATIONS]


def edited(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], edits: Mapping[str, Any]
) -> jax.Array:
    """What `hidden` returns if activations are changed on their way, as model/transformer/hooks.py
    describes; `edits` is the collection of that name."""
    inputs = batch["tokens"], batch.get("positions"), batch.get("segments")
    variables = {"params": params, EDITS: edits}
    return Decoder(cfg).apply(variables, *inputs, method="hidden")[0]


def layers(cfg: Config, params: dict, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The residual stream before the first block and after each, through the final norm
    [L + 1, B, T, D]."""
    _, seen = activations(cfg, params, batch)
    x_LBTD = jnp.concatenate([seen["embedded"][None], seen["blocks"]["residual"]])
    return Decoder(cfg).apply({"params": params | {"blocks": ()}}, x_LBTD, method="normed")


def generate(
    cfg: Config,
    params: dict,
    prompts: Sequence[Sequence[int]],
    n_tokens: int,
    seed: int,
    vocab_size: int,
    stop: tuple[int, ...],
) -> list[list[int]]:
    """Up to `n_tokens` tokens after each prompt, drawn from the model's own distribution, up to one
    of `stop`."""
    sampler = Sampler(vocab_size=vocab_size, stop=stop)
    drawn = sample(params, cfg, prompts, n_tokens, sampler, seed=seed)
    rows = zip(drawn.tokens_BN, drawn.lengths_B, strict=True)
    return [tokens[:count].tolist() for tokens, count in rows]


def vectors(cfg: Config, params: dict) -> jax.Array:
    """The token embedding [V, D]."""
    return params["embed"]["embedding"]


def flops(cfg: Config) -> dict[str, int]:
    """Training FLOPs per token by convention, at `cfg.context_length`."""
    return {name: count_by(cfg) for name, count_by in count.FLOPS.items()}


def weight_flops(cfg: Config) -> dict[str, int]:
    """FLOPs per token of one pass through the weights by convention, and for `matmul_flops`."""
    return {name: count_by(cfg) for name, count_by in count.WEIGHT_FLOPS.items()}


def matmul_flops(cfg: Config) -> int:
    """Training FLOPs of the matrix products per token, without recomputation.

    Attention counts 12 T C per head, as in PaLM. The embedding is a lookup, not a product.
    """
    attention = 12 * cfg.n_layers * cfg.n_heads * cfg.head_dim * cfg.context_length
    return 6 * (count.kernels(cfg) + cfg.d_model * cfg.vocab_size) + attention


def check_mesh(cfg: Config, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the mesh does not divide the heads, the width or the context, or if the
    config's attention backend does not support it. `sizes` maps mesh axes to sizes; the mesh must
    be the current one.
    """
    require_divided(cfg, sizes, n_heads="tensor", d_model="tensor", context_length="sequence")
    kv, parts = cfg.n_kv_heads, sizes.get("tensor", 1)
    if kv % parts and parts % kv:  # fewer heads than parts are repeated
        raise ValueError(
            f"model.n_kv_heads={kv} neither divides mesh.tensor={parts} nor is divisible by it; "
            f"use mesh.tensor={math.gcd(kv, parts)}"
        )
    backends.choose(cfg.attention, attention_spec(cfg), cfg.context_length)
