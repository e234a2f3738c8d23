"""The parts of a captioner before its decoder: patches, their encoder, the projector.

    image [B, H, W, C] → patches [B, P, I] → encoder [B, P, E] → projector [B, P, D] → before the
    tokens' embeddings [B, T, D] in the decoder

P patches of an image, I numbers of a patch, E width of the encoder.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.captioner.config import Config, encoder
from model.transformer.decoder import Block, in_turn, init_blocks
from model.transformer.layers import Embed, Linear, Norm


def patches(cfg: Config, image_BHWC: jax.Array) -> jax.Array:
    """uint8 images as patches [B, P, I] of numbers from -1 to 1, row by row, as `cfg.dtype`."""
    height, width, channels = cfg.image
    rows, columns = height // cfg.patch_height, width // cfg.patch
    x = image_BHWC.reshape(-1, rows, cfg.patch_height, columns, cfg.patch, channels)
    x_BPI = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows * columns, cfg.patch_size)
    return (x_BPI.astype(jnp.float32) / 127.5 - 1).astype(cfg.dtype)


class Encoder(nn.Module):
    """Patches [B, P, I] to states [B, P, E]: a linear map and learned positions, then pre-norm
    blocks in which every patch sees all others (Dosovitskiy et al. 2021, eq. 1 to 3, without a
    class token)."""

    cfg: Config
    train: bool = False

    @nn.compact
    def __call__(self, x_BPI: jax.Array) -> jax.Array:
        cfg, shared = self.cfg, encoder(self.cfg)
        order_BP = jnp.broadcast_to(jnp.arange(x_BPI.shape[1]), x_BPI.shape[:2])
        x_BPE = Linear(shared, cfg.encoder_width, bias=True, name="patch")(x_BPI)
        x_BPE += Embed(shared, cfg.patches, cfg.init_std, name="position")(order_BP)
        x_BPE = nn.Dropout(cfg.dropout, deterministic=not self.train)(x_BPE)
        block = Block(shared, self.train, causal=False, parent=None)
        blocks = self.param("blocks", init_blocks, shared)
        keys = None
        if self.train and cfg.dropout:
            keys = jax.random.split(self.make_rng("dropout"), cfg.encoder_layers)

        def apply(x_BPE, params, key):
            rngs = {} if key is None else {"dropout": key}
            return block.apply({"params": params}, x_BPE, order_BP, rngs=rngs)[0]

        x_BPE = in_turn(shared, apply, (blocks, keys), x_BPE)
        return Norm(shared, name="final_norm")(x_BPE)


class Projector(nn.Module):
    """The encoder's states [B, P, E] as embeddings of the decoder [B, P, D]."""

    cfg: Config

    @nn.compact
    def __call__(self, x_BPE: jax.Array) -> jax.Array:
        cfg, shared = self.cfg, encoder(self.cfg)
        x_BPD = Linear(shared, cfg.d_model, bias=True, name="first")(x_BPE)
        if cfg.projector == "mlp":
            x_BPD = Linear(shared, cfg.d_model, bias=True, name="second")(jax.nn.gelu(x_BPD))
        return x_BPD


def prefix(
    cfg: Config, params: dict, image_BHWC: jax.Array, key: jax.Array | None = None
) -> jax.Array:
    """The embeddings [B, P, D] that the decoder reads before its tokens; with a `key`, dropout is
    on. A frozen encoder has none."""
    train = key is not None and cfg.learns_encoder
    rngs = {"dropout": key} if train else {}
    x_BPI = patches(cfg, image_BHWC)
    x_BPE = Encoder(cfg, train).apply({"params": params["encoder"]}, x_BPI, rngs=rngs)
    return Projector(cfg).apply({"params": params["projector"]}, x_BPE)
