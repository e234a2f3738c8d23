"""The Transformer encoder–decoder (Vaswani et al. 2017; T5, Raffel et al. 2020)."""

import dataclasses
import functools
import math
from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from model.encoder_decoder.config import Config, layers
from model.encoder_decoder.stack import LayerCache, Stack
from model.kernels import masks
from model.transformer.layers import Embed, Linear
from model.transformer.positions import sinusoidal

INPUTS = ("source", "source_segments", "tokens", "segments")  # of a batch, and positions if given


@flax.struct.dataclass
class Cache:
    """What decoding remembers of each row; axis 0 of every array is the row."""

    position_B: jax.Array  # of the next token
    seen_B1S: jax.Array  # True at the tokens of the source
    layers: tuple[LayerCache, ...]


class EncoderDecoder(nn.Module):
    """Source tokens [B, S] and target tokens [B, T] to logits of the next target token [B, T, V].

    Tokens see those of their own segment only; a decoder's token sees the source tokens of its
    segment, and no later target token. Segment 0 is padding. With `train` dropout is on; if
    `cfg.dropout` > 0 it needs `rngs={"dropout": key}`.
    """

    cfg: Config
    train: bool = False

    def setup(self):
        cfg = self.cfg
        relative = cfg.positions == "relative"
        sizes = (cfg.relative_buckets, cfg.relative_distance) if relative else (0, 0)
        of_encoder, of_decoder = layers(cfg, cfg.n_layers), layers(cfg, cfg.decoder_layers)
        self.embed = Embed(of_encoder, cfg.vocab_size, cfg.embedding_std or cfg.d_model**-0.5)
        self.encoder = Stack(of_encoder, False, *sizes, self.train)
        self.decoder = Stack(of_decoder, True, *sizes, self.train)
        if not cfg.tie_embeddings:
            self.head = Linear(of_decoder, cfg.vocab_size, logits=True)

    def hidden(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The decoder's last hidden states [B, T, D]. `source_positions` and `positions` count from
        0 in each row if the batch has none."""
        memory_BSD = self.encode(batch)
        source_BS, target_BT = batch["source_segments"], batch["segments"]
        order_1T = jnp.arange(target_BT.shape[1])[None]
        mask_BTT = masks.same_segment(target_BT, target_BT) & masks.causal(order_1T, order_1T)
        x_BTD = self._embedded(batch["tokens"], batch.get("positions"))
        return self.decoder(x_BTD, mask_BTT, memory_BSD, masks.same_segment(target_BT, source_BS))

    def encode(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The encoder's last hidden states [B, S, D]."""
        segments_BS = batch["source_segments"]
        x_BSD = self._embedded(batch["source"], batch.get("source_positions"))
        return self.encoder(x_BSD, masks.same_segment(segments_BS, segments_BS))

    def start(self, batch: Mapping[str, jax.Array], length: int) -> Cache:
        """The cache of rows that hold one source each, before the first of `length` tokens."""
        seen_BS = batch["source_segments"] > 0
        caches = self.decoder.caches(self.encode(batch), length)
        return Cache(jnp.zeros(len(seen_BS), jnp.int32), seen_BS[:, None], caches)

    def step(self, cache: Cache, tokens_B: jax.Array) -> tuple[jax.Array, Cache]:
        """Logits [B, V] of what follows one more token of each row, and the extended cache."""
        position_B = cache.position_B
        x_B1D = self._embedded(tokens_B[:, None], position_B[:, None])
        x_B1D, caches = self.decoder.step(x_B1D, cache.layers, position_B, cache.seen_B1S)
        return self.logits(x_B1D)[:, 0], cache.replace(position_B=position_B + 1, layers=caches)

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Logits [B, T, V], float32."""
        x_BTD *= self.cfg.logit_scale
        return self.embed.score(x_BTD) if self.cfg.tie_embeddings else self.head(x_BTD)

    def _embedded(self, tokens_BT: jax.Array, positions_BT: jax.Array | None) -> jax.Array:
        cfg, x_BTD = self.cfg, self.embed(tokens_BT)
        if cfg.embedding_scale:
            x_BTD *= jnp.asarray(math.sqrt(cfg.d_model), x_BTD.dtype)
        if cfg.positions == "sinusoidal":
            if positions_BT is None:
                positions_BT = jnp.arange(tokens_BT.shape[1])[None]
            x_BTD += sinusoidal(positions_BT, cfg.d_model).astype(x_BTD.dtype)
        return x_BTD


def init(cfg: Config, key: jax.Array) -> dict:
    """Fresh float32 parameters."""
    batch = dict.fromkeys(INPUTS, jnp.zeros((1, 1), jnp.int32))
    forward = lambda model, batch: model.logits(model.hidden(batch))  # noqa: E731
    return EncoderDecoder(cfg).init(key, batch, method=forward)["params"]


@functools.lru_cache(maxsize=64)
def shapes(cfg: Config) -> dict:
    """The parameter tree with shapes in place of arrays; nothing is computed."""
    # All blocks of a stack have the same shapes: tracing one is enough.
    one = dataclasses.replace(cfg, n_layers=1, decoder_layers=1)
    tree = jax.eval_shape(lambda: init(one, jax.random.key(0)))
    for side, count in (("encoder", cfg.n_layers), ("decoder", cfg.decoder_layers)):
        stack = lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype)  # noqa: B023, E731
        tree[side] |= {"blocks": jax.tree.map(stack, tree[side]["blocks"])}
    return tree
