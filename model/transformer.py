"""This file assembles the Transformer: a Block, and the Decoder that stacks L of them.

The parameters of all blocks are stacked along a leading layer axis, so that one layout serves the
unrolled loop (faster on CPU), a scan over layers, and every checkpoint.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from model import parametrization
from model.attention import Attention, Cache, empty_cache
from model.config import ModelConfig
from model.layers import MLP, Embed, Linear, Norm, constrain


class Block(nn.Module):
    """x + r Attention(Norm(x)), then x + r MLP(Norm(x)): a pre-norm residual block.

    r is 1 where `cfg.parametrization` knows no depth.
    """

    cfg: ModelConfig
    train: bool = False

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        cache: Cache | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        cfg = self.cfg
        dropout = nn.Dropout(cfg.dropout, deterministic=not self.train)
        attention, scale = Attention(cfg, name="attention"), parametrization.branches(cfg)
        h_BTD = Norm(cfg, name="attention_norm")(x_BTD)
        h_BTD, cache = attention(h_BTD, positions_BT, segments_BT, cache)
        x_BTD += scale * dropout(h_BTD)
        h_BTD = MLP(cfg, name="mlp")(Norm(cfg, name="mlp_norm")(x_BTD))
        return x_BTD + scale * dropout(h_BTD), cache


class Decoder(nn.Module):
    """A decoder-only language model: tokens [B, T] to next-token logits [B, T, V] (float32).

    `train=True` turns dropout on and then needs `rngs={"dropout": key}`.
    """

    cfg: ModelConfig
    train: bool = False

    def setup(self):
        cfg = self.cfg
        self.embed = Embed(cfg, cfg.vocab_size, cfg.init_std)
        if cfg.positions == "learned":
            # GPT-2's published code starts positions at half the standard deviation of tokens.
            std = cfg.init_std / 2 if cfg.init == "gpt2" else cfg.init_std
            self.position = Embed(cfg, cfg.context_length, std)
        self.block = Block(cfg, self.train, parent=None)
        self.blocks = self.param("blocks", init_blocks, cfg)
        self.final_norm = Norm(cfg)
        if not cfg.tie_embeddings:
            self.head = Linear(cfg, cfg.vocab_size, logits=True)
        self.dropout = nn.Dropout(cfg.dropout, deterministic=not self.train)

    def __call__(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array | None = None,
        segments_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Logits; positions default to 0..T-1; segments keep packed documents apart."""
        x_BTD, _ = self.hidden(tokens_BT, positions_BT, segments_BT)
        return self.logits(x_BTD)

    def decode(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, caches: list[Cache]
    ) -> tuple[jax.Array, list[Cache]]:
        """Logits of tokens that continue what the caches hold, and the caches with them in."""
        x_BTD, caches = self.hidden(tokens_BT, positions_BT, caches=caches)
        return self.logits(x_BTD), caches

    def hidden(self, tokens_BT, positions_BT=None, segments_BT=None, caches=None):
        """The residual stream after the last norm [B, T, D], and the caches if there were any."""
        if positions_BT is None:
            positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
        x_BTD = self.embed(tokens_BT)
        if self.cfg.positions == "learned":
            x_BTD += self.position(positions_BT)
        x_BTD = self.dropout(x_BTD)
        keys = self._dropout_keys()
        new_caches = []
        for layer in range(self.cfg.n_layers):
            params = jax.tree.map(lambda stacked: stacked[layer], self.blocks)  # noqa: B023
            cache = None if caches is None else caches[layer]
            x_BTD = constrain(x_BTD, "batch", "seq", "activation")
            x_BTD, cache = self.block.apply(
                {"params": params}, x_BTD, positions_BT, segments_BT, cache, rngs=keys[layer]
            )
            new_caches.append(cache)
        return self.final_norm(x_BTD), new_caches

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        x_BTD *= parametrization.logits(self.cfg)
        return self.head(x_BTD) if not self.cfg.tie_embeddings else self.embed.score(x_BTD)

    def _dropout_keys(self) -> list[dict[str, jax.Array]]:
        if not (self.train and self.cfg.dropout):
            return [{}] * self.cfg.n_layers
        return [
            {"dropout": key}
            for key in jax.random.split(self.make_rng("dropout"), self.cfg.n_layers)
        ]


def init_blocks(key: jax.Array, cfg: ModelConfig) -> dict:
    """The parameters of L blocks, each leaf with a leading layer axis."""
    x_BTD, positions_BT = jnp.zeros((1, 1, cfg.d_model)), jnp.zeros((1, 1), jnp.int32)
    init = lambda key: Block(cfg, parent=None).init(key, x_BTD, positions_BT)["params"]  # noqa: E731
    return jax.vmap(init)(jax.random.split(key, cfg.n_layers))


def init(cfg: ModelConfig, key: jax.Array) -> dict:
    """Fresh parameters, float32, as published for `cfg.init`."""
    return Decoder(cfg).init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def empty_caches(cfg: ModelConfig, batch: int, length: int) -> list[Cache]:
    return [empty_cache(cfg, batch, length) for _ in range(cfg.n_layers)]
