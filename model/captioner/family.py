"""The captioner as a model family (model/families.py states the interface).

A decoder that reads an image, as the embeddings of its patches, before its tokens. `hidden` returns
the states of the tokens alone, so every objective of next tokens works, and patches have no loss.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from model.captioner import count
from model.captioner.captioner import Encoder, Projector, prefix
from model.captioner.config import Config as Config
from model.captioner.config import decoder
from model.captioner.config import derive as derive
from model.captioner.count import matmul_flops as matmul_flops
from model.captioner.count import parameters as parameters
from model.captioner.reading import READER as READER
from model.partitioning import require_divided, require_whole_rows
from model.transformer import decoder as transformer
from model.transformer import family as of_decoder

INPUTS = ("image", "tokens")
PARAMETER_AXES = (
    *((rf"^decoder/{rule[1:]}", axes) for rule, axes in of_decoder.PARAMETER_AXES),
    *(
        (rf"^encoder/{rule[1:]}", axes)
        for rule, axes in of_decoder.PARAMETER_AXES
        if rule.startswith("^blocks/")
    ),
    (r"^encoder/patch/kernel$", ("vector", "mlp")),
    (r"^encoder/position/embedding$", ("position", "embed")),
    (r"^encoder/final_norm/(scale|bias)$", ("vector",)),
    (r"^projector/(first|second)/kernel$", ("embed", "mlp")),
    (r"^(encoder/patch|projector/(first|second))/bias$", ("mlp",)),
)
# Stacked kernels [L, in, out] are L matrices.
MATRICES = (
    (r"/blocks/.*kernel$", (1, 2)),
    (r"^(encoder/patch|projector/\w+)/kernel$", (0, 1)),
    (r"^decoder/head/kernel$", None),
    (r"(embedding|scale|bias)$", None),
)


def init(cfg: Config, key: jax.Array) -> dict:
    """Fresh float32 parameters; a frozen encoder is not among them."""
    of_encoder, of_projector, of_tokens = jax.random.split(key, 3)
    x_BPI = jnp.zeros((1, cfg.patches, cfg.patch_size))
    x_BPE = jnp.zeros((1, cfg.patches, cfg.encoder_width))
    params = {
        "projector": Projector(cfg).init(of_projector, x_BPE)["params"],
        "decoder": transformer.init(decoder(cfg), of_tokens),
    }
    if cfg.learns_encoder:
        params["encoder"] = Encoder(cfg).init(of_encoder, x_BPI)["params"]
    return params


def hidden(
    cfg: Config, params: dict, batch: Mapping[str, jax.Array], key: jax.Array | None = None
) -> jax.Array:
    """The decoder's states of the tokens [B, T, D] after the image; with a `key`, dropout is on."""
    keys = (None, None) if key is None else jax.random.split(key)
    prefix_BPD = prefix(cfg, params, batch["image"], keys[0])
    model = transformer.Decoder(decoder(cfg), train=key is not None)
    x_BLD, _ = model.apply(
        {"params": params["decoder"]},
        batch["tokens"],
        prefix_BPD=prefix_BPD,
        rngs={} if key is None else {"dropout": keys[1]},
        method="hidden",
    )
    return x_BLD[:, cfg.patches :]


def head(cfg: Config, params: dict) -> dict:
    """The parameters of the output head: those of the head, or the embedding if it is tied."""
    return transformer.head_of(decoder(cfg), params["decoder"])


def logits(cfg: Config, head: dict, x: jax.Array) -> jax.Array:
    """Logits [B, T, V], float32, of hidden states [B, T, D]."""
    return transformer.logits(decoder(cfg), head, x)


def vectors(cfg: Config, params: dict) -> jax.Array:
    """The token embedding [V, D]."""
    return params["decoder"]["embed"]["embedding"]


def flops(cfg: Config) -> dict[str, float]:
    """Training FLOPs per token of a caption by convention, for full rows of patches and tokens."""
    return {name: count_by(cfg) for name, count_by in count.FLOPS.items()}


def check_mesh(cfg: Config, sizes: Mapping[str, int]) -> None:
    """Raises ValueError if the mesh does not divide the heads or the widths, or if it shards the
    tokens of a row."""
    require_divided(
        cfg, sizes, n_heads="tensor", d_model="tensor", encoder_heads="tensor",
        encoder_width="tensor",
    )  # fmt: skip
    require_whole_rows("captioner", sizes)
