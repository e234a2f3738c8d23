"""How a captioner draws tokens: the image is read with the prompt, and each token follows.

The functions have the arguments and results of those of model/generation/sample.py. The images
[B, H, W, C], one for each prompt or one for all, are the entry `image` of the parameters.
"""

import jax
import jax.numpy as jnp

from model.captioner.captioner import prefix
from model.captioner.config import Config, decoder
from model.generation import sample
from model.transformer.attention import Cache
from model.transformer.decoder import Decoder, empty_caches

IMAGE = "image"


def with_images(params: dict, image_BHWC: jax.Array) -> dict:
    """The parameters with the images that are captioned."""
    return params | {IMAGE: image_BHWC}


def prepare(params: dict, cfg: Config) -> dict:
    """The parameters with the decoder in the form that decodes fastest."""
    return params | {"decoder": sample.prepare(params["decoder"], decoder(cfg))}


def prefill(
    params: dict, cfg: Config, prompts_PT: jax.Array, positions_PT: jax.Array, length: int,
    at_once: int = 1,
) -> tuple[jax.Array, list[Cache]]:  # fmt: skip
    """Logits [P, V] after each image and its prompt, and caches for contexts of `length` tokens
    after the image. Padding of prompts has position -1."""
    of_decoder, rows = decoder(cfg), len(prompts_PT)
    prefix_PSD = prefix(cfg, params, params[IMAGE])
    prefix_PSD = jnp.broadcast_to(prefix_PSD, (rows, *prefix_PSD.shape[1:]))
    before = jnp.broadcast_to(jnp.arange(cfg.patches), (rows, cfg.patches))
    after = jnp.where(positions_PT >= 0, positions_PT + cfg.patches, -1)
    positions = jnp.concatenate([before, after], axis=1)
    caches = empty_caches(of_decoder, rows, cfg.patches + length, at_once)
    model, tree = Decoder(of_decoder), {"params": params["decoder"]}
    read = prompts_PT, positions, caches, prefix_PSD
    x_PLD, caches = model.apply(tree, *read, method="prefill")
    last_P1D = jnp.take_along_axis(x_PLD, positions.argmax(1)[:, None, None], axis=1)
    return model.apply(tree, last_P1D, method="logits")[:, 0].astype(jnp.float32), caches


def decode(
    params: dict, cfg: Config, tokens_BT: jax.Array, positions_BT: jax.Array, caches: list[Cache]
) -> tuple[jax.Array, list[Cache]]:
    """Logits [B, T, V] after each of T more tokens per row, and the caches with them in."""
    places = positions_BT + cfg.patches
    return sample.decode(params["decoder"], decoder(cfg), tokens_BT, places, caches)


READER = sample.Reader(prepare, prefill, decode, bounded=True)
