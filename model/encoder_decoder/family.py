"""The Transformer encoder–decoder as a model family (model/families.py states the interface)."""

from collections.abc import Mapping

import jax

from model.encoder_decoder import count
from model.encoder_decoder.config import Config as Config
from model.encoder_decoder.config import derive as derive
from model.encoder_decoder.count import matmul_flops as matmul_flops
from model.encoder_decoder.count import parameters as parameters
from model.encoder_decoder.encoder_decoder import INPUTS as INPUTS
from model.encoder_decoder.encoder_decoder import Cache, EncoderDecoder
from model.encoder_decoder.encoder_decoder import init as init
from model.encoder_decoder.encoder_decoder import shapes as shapes
from model.partitioning import require_divided, require_whole_rows

PARAMETER_AXES = (
    (r"^embed/embedding$", ("vocab", "embed")),
    (r"/relative/embedding$", ("position", "vector")),
    (r"/blocks/(attention|cross)/(query|key|value)/kernel$", ("layer", "embed", "heads")),
    (r"/blocks/(attention|cross)/(query|key|value)/bias$", ("layer", "heads")),
    (r"/blocks/(attention|cross)/out/kernel$", ("layer", "heads", "embed")),
    (r"/blocks/mlp/(up|gate)/kernel$", ("layer", "embed", "mlp")),
    (r"/blocks/mlp/(up|gate)/bias$", ("layer", "mlp")),
    (r"/blocks/mlp/down/kernel$", ("layer", "mlp", "embed")),
    (r"/blocks/(attention/out|cross/out|mlp/down)/bias$", ("layer", "vector")),
    (r"/blocks/(attention|cross|mlp)_norm/(scale|bias)$", ("layer", "vector")),
    (r"/final_norm/(scale|bias)$", ("vector",)),
    (r"^head/kernel$", ("embed", "vocab")),
)
# Stacked kernels [L, in, out] are L matrices.
MATRICES = (
    (r"/blocks/.*kernel$", (1, 2)),
    (r"^head/kernel$", None),
    (r"(embedding|scale|bias)$", None),
)
LINEARS = r"/blocks/.*kernel$"


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The decoder's last hidden states [B, T, D]; with a `key`, dropout is on."""
    rngs = {} if key is None else {"dropout": key}
    model = EncoderDecoder(cfg, train=key is not None)
    return model.apply({"params": params}, batch, rngs=rngs, method="hidden")


def head(cfg: Config, params: dict) -> dict:
    """The parameters of the output head: those of the head, or the embedding if it is tied."""
    name = "embed" if cfg.tie_embeddings else "head"
    return {name: params[name]}


def logits(cfg: Config, head: dict, x: jax.Array) -> jax.Array:
    """Logits [B, T, V], float32, of hidden states [B, T, D]."""
    return EncoderDecoder(cfg).apply({"params": head}, x, method="logits")


def start(cfg: Config, params: dict, batch: Mapping[str, jax.Array], length: int) -> Cache:
    """The cache of rows that hold one source each: `source` and `source_segments` [B, S]."""
    return EncoderDecoder(cfg).apply({"params": params}, batch, length, method="start")


def step(cfg: Config, params: dict, cache: Cache, tokens: jax.Array) -> tuple[jax.Array, Cache]:
    """(logits [B, V] after one more token [B] of each row, the extended cache)."""
    return EncoderDecoder(cfg).apply({"params": params}, cache, tokens, method="step")


def flops(cfg: Config) -> dict[str, float]:
    """Training FLOPs per target token by convention, for full rows of source and target."""
    return {name: count_by(cfg) for name, count_by in count.FLOPS.items()}


def weight_flops(cfg: Config) -> dict[str, float]:
    """FLOPs per token of one pass through the weights by convention, and for `matmul_flops`."""
    return {name: count_by(cfg) for name, count_by in count.WEIGHT_FLOPS.items()}


def check_mesh(cfg: Config, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the mesh does not divide the heads or the width, or if it shards the
    tokens of a row."""
    require_divided(cfg, sizes, n_heads="tensor", d_model="tensor")
    require_whole_rows("encoder_decoder", sizes)
