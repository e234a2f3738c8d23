"""The BERT encoder as a model family (model/families.py states the interface).

It predicts masked tokens from both sides, so it has `masked_logits` and no `logits`: it gives no
distribution of the next token.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from model import classes
from model.encoder import count
from model.encoder.config import Config as Config
from model.encoder.config import derive as derive
from model.encoder.count import matmul_flops as matmul_flops
from model.encoder.count import parameters as parameters
from model.encoder.encoder import Encoder
from model.partitioning import require_divided, require_whole_rows

INPUTS = ("tokens", "segments")  # positions and token_types are used too if a batch has them
PARAMETER_AXES = (
    (r"^embed/embedding$", ("vocab", "embed")),
    (r"^(position|token_type)/embedding$", ("position", "embed")),
    (r"^blocks/attention/(query|key|value)/kernel$", ("layer", "embed", "heads")),
    (r"^blocks/attention/(query|key|value)/bias$", ("layer", "heads")),
    (r"^blocks/attention/out/kernel$", ("layer", "heads", "embed")),
    (r"^blocks/mlp/up/kernel$", ("layer", "embed", "mlp")),
    (r"^blocks/mlp/up/bias$", ("layer", "mlp")),
    (r"^blocks/mlp/down/kernel$", ("layer", "mlp", "embed")),
    (r"^blocks/(attention/out|mlp/down)/bias$", ("layer", "vector")),
    (r"^blocks/(attention|mlp)_post_norm/(scale|bias)$", ("layer", "vector")),
    (r"^(transform|pooler)/kernel$", ("embed", "mlp")),
    (r"^(transform|pooler)/bias$", ("mlp",)),
    (r"^(embed|transform)_norm/(scale|bias)$", ("vector",)),
    (r"^head/bias$", ("vocab",)),
    *classes.PARAMETER_AXES,
)
# Stacked kernels [L, in, out] are L matrices.
MATRICES = (
    (r"^blocks/.*kernel$", (1, 2)),
    (r"^(transform|pooler)/kernel$", (0, 1)),
    (r"^classes/kernel$", None),
    (r"(embedding|scale|bias)$", None),
)
# Heads that may differ between a model and the weights that it starts from.
LINEARS = r"^blocks/.*kernel$"
HEADS = (r"^(pooler|transform|transform_norm|head)/", classes.PATHS)


def init(cfg: Config, key: jax.Array) -> dict:
    """Fresh float32 parameters."""
    ours, of_classes = jax.random.split(key)
    batch = dict.fromkeys(INPUTS, jnp.zeros((1, 1), jnp.int32))
    params = Encoder(cfg).init(ours, batch)["params"]
    return params | classes.init(of_classes, cfg)


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The states after the last block [B, T, D]; with a `key`, dropout is on."""
    return _apply(cfg, params, "hidden", batch, key)


def pooled(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The state of each row's first token, through the pooler if there is one [B, D]."""
    return _apply(cfg, params, "pooled", batch, key)


def masked_logits(cfg: Config, params: dict, x: jax.Array) -> jax.Array:
    """Logits [B, K, V], float32, of the tokens at K places with the states x [B, K, D]."""
    return _apply(cfg, params, "masked_logits", x)


def _apply(cfg: Config, params: dict, method: str, inputs, key: jax.Array | None = None):
    rngs = {} if key is None else {"dropout": key}
    model = Encoder(cfg, train=key is not None)
    return model.apply({"params": params}, inputs, rngs=rngs, method=method)


def flops(cfg: Config) -> dict[str, float]:
    """Training FLOPs per token by convention, at `cfg.context_length`."""
    return {name: count_by(cfg) for name, count_by in count.FLOPS.items()}


def weight_flops(cfg: Config) -> dict[str, float]:
    """FLOPs per token of one pass through the weights by convention, and for `matmul_flops`."""
    return {name: count_by(cfg) for name, count_by in count.WEIGHT_FLOPS.items()}


def check_mesh(cfg: Config, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the mesh does not divide the heads or the width, or if it shards the
    tokens of a row."""
    require_divided(cfg, sizes, n_heads="tensor", d_model="tensor")
    require_whole_rows("encoder", sizes)
