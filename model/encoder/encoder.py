"""The encoder of BERT (Devlin et al. 2019): every token sees every token of its own segment."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.encoder.config import Config, layers
from model.transformer.decoder import Block, in_turn, init_blocks
from model.transformer.layers import ACTIVATIONS, Embed, Linear, Norm


class Encoder(nn.Module):
    """Tokens [B, T] to states [B, T, D], to the logits of masked tokens and to a pooled state.

    `segments` [B, T] separate packed texts; 0 is padding. `token_types` say which sentence of a
    pair a token belongs to; without them all are of type 0. Positions count from 0 in each row if
    the batch has none. With `train` dropout is on; if `cfg.dropout` > 0 it needs
    `rngs={"dropout": key}`.
    """

    cfg: Config
    train: bool = False

    def setup(self):
        cfg, shared = self.cfg, layers(self.cfg)
        self.embed = Embed(shared, cfg.vocab_size, cfg.init_std)
        self.position = Embed(shared, cfg.context_length, cfg.init_std)
        self.token_type = Embed(shared, cfg.token_types, cfg.init_std)
        self.embed_norm = Norm(shared)
        self.block = Block(shared, self.train, causal=False, parent=None)
        given = self.get_variable("params", "blocks")  # `self.param` accepts no adapters
        self.blocks = given or self.param("blocks", init_blocks, shared)
        self.dropout = nn.Dropout(cfg.dropout, deterministic=not self.train)
        if cfg.pooler:
            self.pooler = Linear(shared, cfg.d_model, bias=True)
        if cfg.masked_head:
            self.transform = Linear(shared, cfg.d_model, bias=True)
            self.transform_norm = Norm(shared)
            self.head = VocabularyBias(cfg.vocab_size)

    def __call__(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, ...]:
        """Everything that the model computes, for `init`."""
        x_BTD = self.hidden(batch)
        heads = (self.masked_logits(x_BTD),) if self.cfg.masked_head else ()
        return x_BTD, self.pooled(batch), *heads

    def hidden(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The states after the last block [B, T, D]."""
        x_BTD = self.dropout(self.embed_norm(self._embedded(batch)))
        order_BT = jnp.broadcast_to(jnp.arange(x_BTD.shape[1]), x_BTD.shape[:2])
        segments_BT, keys = batch["segments"], self._dropout_keys()

        def apply(x_BTD, params, key):
            rngs = {} if key is None else {"dropout": key}
            return self.block.apply({"params": params}, x_BTD, order_BT, segments_BT, rngs=rngs)[0]

        return in_turn(layers(self.cfg), apply, (self.blocks, keys), x_BTD)

    def pooled(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        """The state of each row's first token, through the pooler if there is one [B, D]."""
        x_B1D = self.hidden(batch)[:, :1]
        if self.cfg.pooler:
            x_B1D = jnp.tanh(self.pooler(x_B1D))
        return self.dropout(x_B1D[:, 0])

    def masked_logits(self, x_BKD: jax.Array) -> jax.Array:
        """Logits [B, K, V], float32, of the tokens at places with the states x."""
        act = ACTIVATIONS[self.cfg.activation]
        x_BKD = self.transform_norm(act(self.transform(x_BKD)))
        return self.head(self.embed.score(x_BKD))

    def _embedded(self, batch: Mapping[str, jax.Array]) -> jax.Array:
        tokens_BT = batch["tokens"]
        positions_BT = batch.get("positions")
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        types_BT = batch.get("token_types")
        types_BT = jnp.zeros_like(tokens_BT) if types_BT is None else types_BT
        return self.embed(tokens_BT) + self.position(positions_BT) + self.token_type(types_BT)

    def _dropout_keys(self) -> jax.Array | None:
        """One key per layer [L]; None without dropout."""
        if not (self.train and self.cfg.dropout):
            return None
        return jax.random.split(self.make_rng("dropout"), self.cfg.n_layers)


class VocabularyBias(nn.Module):
    """The bias of the tied head: logits + b."""

    size: int

    @nn.compact
    def __call__(self, logits_BKV: jax.Array) -> jax.Array:
        return logits_BKV + self.param("bias", nn.initializers.zeros, (self.size,))
