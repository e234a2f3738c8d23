"""The decoder-only Transformer: a Block, and the Decoder that stacks L of them.

The parameters of all blocks are stacked along a leading layer axis. This one layout serves the
unrolled loop (faster on CPU), the scan over layers (compiled once) and every checkpoint.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from model.transformer import parametrization
from model.transformer.attention import Attention, Cache, empty_cache
from model.transformer.config import ModelConfig
from model.transformer.hooks import ACTIVATIONS, EDITS, hooked, kept, watched
from model.transformer.layers import MLP, Embed, Linear, Norm, constrain
from model.transformer.positions import sinusoidal
from model.transformer.remat import rematerialised


class Block(nn.Module):
    """Attention and MLP around a residual stream x, by `cfg.norm_position`:

        pre       x + r A(norm(x)), then x + r M(norm(x))               GPT-2, LLaMA
        post      norm(x + r A(x)), then norm(x + r M(x))               Vaswani et al. 2017
        both      x + r norm(A(norm(x))), then x + r norm(M(norm(x)))   Gemma 2
        parallel  x + r (A(norm(x)) + M(norm(x))), one norm for both    PaLM

    r is 1 unless `cfg.parametrization` scales with depth. `local`: attention has the window.
    Without `causal`, tokens also see later ones, as in an encoder.
    """

    cfg: ModelConfig
    train: bool = False
    local: bool = False
    causal: bool = True

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        positions_BT: jax.Array,
        segments_BT: jax.Array | None = None,
        cache: Cache | None = None,
        prefill: bool = False,
    ) -> tuple[jax.Array, Cache | None]:
        cfg, order = self.cfg, self.cfg.norm_position
        before = order != "post"
        dropout = nn.Dropout(cfg.dropout, deterministic=not self.train)
        attention = Attention(cfg, self.local, self.causal, name="attention")
        mlp = MLP(cfg, name="mlp")
        scale = parametrization.branches(cfg)

        def norm(name, x_BTD, wanted):
            return Norm(cfg, name=name)(x_BTD) if wanted else x_BTD

        def add(name, x_BTD, h_BTD):
            h_BTD = norm(name, h_BTD, order == "both")
            return norm(name, x_BTD + scale * dropout(h_BTD), order == "post")

        n_BTD = norm("attention_norm", x_BTD, before)
        h_BTD, cache = attention(n_BTD, positions_BT, segments_BT, cache, prefill)
        if order == "parallel":
            return hooked(self, "residual", add("", x_BTD, h_BTD + mlp(n_BTD))), cache
        x_BTD = add("attention_post_norm", x_BTD, h_BTD)
        h_BTD = mlp(norm("mlp_norm", x_BTD, before))
        return hooked(self, "residual", add("mlp_post_norm", x_BTD, h_BTD)), cache


class Decoder(nn.Module):
    """A decoder-only language model: tokens [B, T] to next-token logits [B, T, V] (float32).

    `train=True` turns dropout on; if `cfg.dropout` > 0 it needs `rngs={"dropout": key}`.
    """

    cfg: ModelConfig
    train: bool = False

    def setup(self):
        cfg = self.cfg
        self.embed = Embed(cfg, cfg.vocab_size, cfg.embedding_std or cfg.init_std)
        if cfg.positions == "learned":
            # GPT-2's published code initialises positions with half the std of tokens.
            std = cfg.init_std / 2 if cfg.init == "gpt2" else cfg.init_std
            self.position = Embed(cfg, cfg.context_length, std)
        self.block = {local: Block(cfg, self.train, local, parent=None) for local in (False, True)}
        # `self.param` accepts neither the tuple of layers that `unstack` gives nor adapters.
        given = self.has_variable("params", "blocks")
        blocks = self.get_variable("params", "blocks")
        self.blocks = blocks if given else self.param("blocks", init_blocks, cfg)
        if cfg.norm_position != "post":
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
        """Logits [B, T, V]. Positions default to 0..T-1; segments separate packed documents."""
        x_BTD, _ = self.hidden(tokens_BT, positions_BT, segments_BT)
        return self.logits(x_BTD)

    def prefill(
        self,
        tokens_BT: jax.Array,
        positions_BT: jax.Array,
        caches: list[Cache],
        prefix_BPD: jax.Array | None = None,
    ) -> tuple[jax.Array, list[Cache]]:
        """The final hidden states [B, T, D] of tokens that begin a context, and the caches with
        those tokens added. Rows shorter than T are padded with tokens at position -1. A prefix is
        that of `hidden`.
        """
        return self.hidden(
            tokens_BT, positions_BT, caches=caches, prefill=True, prefix_BPD=prefix_BPD
        )

    def decode(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, caches: list[Cache]
    ) -> tuple[jax.Array, list[Cache]]:
        """Logits [B, T, V] of tokens that follow the cached ones, and the extended caches."""
        x_BTD, caches = self.hidden(tokens_BT, positions_BT, caches=caches)
        return self.logits(x_BTD), caches

    def hidden(
        self,
        tokens_BT,
        positions_BT=None,
        segments_BT=None,
        caches=None,
        prefill=False,
        prefix_BPD=None,
    ) -> tuple[jax.Array, list[Cache]]:
        """The residual stream after the final norm [B, T, D], and the caches, if any.

        The embeddings of a prefix, such as the patches of an image, come before those of the
        tokens: then positions, segments and result are of P + T places.
        """
        if positions_BT is None:
            rows, length = tokens_BT.shape
            length += 0 if prefix_BPD is None else prefix_BPD.shape[1]
            positions_BT = jnp.broadcast_to(jnp.arange(length), (rows, length))
        x_BTD = self.dropout(self._embedded(tokens_BT, positions_BT, prefix_BPD))
        x_BTD = hooked(self, "embedded", x_BTD)
        if caches is None:
            x_BTD, new_caches = self._through(x_BTD, positions_BT, segments_BT), []
        else:
            x_BTD, new_caches = self._with_caches(x_BTD, positions_BT, caches, prefill)
        return self.normed(x_BTD), new_caches

    def normed(self, x_BTD: jax.Array) -> jax.Array:
        """The residual stream after the final norm, if the model has one."""
        return self.final_norm(x_BTD) if self.cfg.norm_position != "post" else x_BTD

    def _with_caches(self, x_BTD, positions_BT, caches, prefill) -> tuple[jax.Array, list[Cache]]:
        """x after all blocks, and the caches with these tokens added."""
        unstacked, new_caches = isinstance(self.blocks, tuple), []
        for layer, cache in enumerate(caches):
            params = self.blocks[layer] if unstacked else layer_of(self.blocks, layer)
            x_BTD = constrain(x_BTD, "batch", "seq", "activation")
            x_BTD, cache = self.block[self.cfg.is_local(layer)].apply(
                {"params": params}, x_BTD, positions_BT, None, cache, prefill
            )
            new_caches.append(cache)
        return x_BTD, new_caches

    def _through(self, x_BTD, positions_BT, segments_BT) -> jax.Array:
        """x after all blocks. With `scan_layers`, a scan runs over the repetitions of the window
        pattern, followed by the layers of an incomplete repetition.
        """
        cfg, left = self.cfg, self.cfg.n_layers
        # With a leading layer axis each: parameters, dropout keys or None, edits or None.
        layers = self.blocks, self._dropout_keys(), self.get_variable(EDITS, "blocks")

        def apply(x_BTD, layers, count, scanned=False):
            block = {local: self._checkpointed(local, scanned) for local in (False, True)}
            seen = []
            for layer in range(count):
                x_BTD = constrain(x_BTD, "batch", "seq", "activation")
                how = layer_of(layers, layer), positions_BT, segments_BT
                x_BTD, activations = block[cfg.is_local(layer)](x_BTD, *how)
                seen.append(activations)
            return x_BTD, jax.tree.map(lambda *x: jnp.stack(x), *seen) if seen else {}

        period, scanned = cfg.period, {}
        if cfg.scan_layers and cfg.n_layers >= period:
            left = cfg.n_layers % period
            groups = jax.tree.map(
                lambda x: x[: len(x) - left].reshape(-1, period, *x.shape[1:]), layers
            )
            step = lambda x_BTD, group: apply(x_BTD, group, period, scanned=True)  # noqa: E731
            x_BTD, scanned = jax.lax.scan(step, x_BTD, groups)
            scanned = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), scanned)
            layers = jax.tree.map(lambda x: x[len(x) - left :], layers)
        x_BTD, unrolled = apply(x_BTD, layers, left)
        if watched(self):
            parts = [part for part in (scanned, unrolled) if part]
            kept(self, "blocks", jax.tree.map(lambda *x: jnp.concatenate(x), *parts))
        return x_BTD

    def _checkpointed(self, local: bool, scanned: bool):
        """A block as a function of (x, (parameters, dropout key or None, edits or None), positions,
        segments) to (x, the activations that are watched)."""
        block, watch = self.block[local], [ACTIVATIONS] * watched(self)

        def apply(x_BTD, layer, positions_BT, segments_BT):
            params, key, edits = layer
            variables = {"params": params} | ({} if edits is None else {EDITS: edits})
            rngs = {} if key is None else {"dropout": key}
            (x_BTD, _), seen = block.apply(
                variables, x_BTD, positions_BT, segments_BT, rngs=rngs, mutable=watch
            )
            return x_BTD, seen.get(ACTIVATIONS, {})

        return rematerialised(apply, self.cfg.remat, scanned)

    def logits(self, x_BTD: jax.Array) -> jax.Array:
        """Next-token logits [B, T, V], float32."""
        cfg = self.cfg
        x_BTD *= parametrization.logits(cfg)
        logits_BTV = self.embed.score(x_BTD) if cfg.tie_embeddings else self.head(x_BTD)
        if cfg.logit_softcap:
            logits_BTV = cfg.logit_softcap * jnp.tanh(logits_BTV / cfg.logit_softcap)
        return logits_BTV

    def _embedded(self, tokens_BT, positions_BT, prefix_BPD=None) -> jax.Array:
        cfg = self.cfg
        x_BTD = self.embed(tokens_BT)
        if cfg.embedding_scale:  # rounded as in Gemma: √3072 is 55.5 in bfloat16
            x_BTD *= jnp.asarray(math.sqrt(cfg.d_model), x_BTD.dtype)
        if prefix_BPD is not None:
            x_BTD = jnp.concatenate([prefix_BPD.astype(x_BTD.dtype), x_BTD], axis=1)
        if cfg.positions == "learned":
            x_BTD += self.position(positions_BT)
        if cfg.positions == "sinusoidal":
            x_BTD += sinusoidal(positions_BT, cfg.d_model).astype(x_BTD.dtype)
        return x_BTD

    def _dropout_keys(self) -> jax.Array | None:
        """One key per layer [L]; None without dropout."""
        if not (self.train and self.cfg.dropout):
            return None
        return jax.random.split(self.make_rng("dropout"), self.cfg.n_layers)


def init_blocks(key: jax.Array, cfg: ModelConfig) -> dict:
    """Fresh parameters of L blocks, each leaf with a leading layer axis."""
    x_BTD, positions_BT = jnp.zeros((1, 1, cfg.d_model)), jnp.zeros((1, 1), jnp.int32)
    init = lambda key: Block(cfg, parent=None).init(key, x_BTD, positions_BT)["params"]  # noqa: E731
    return jax.vmap(init)(jax.random.split(key, cfg.n_layers))


def in_turn(cfg: ModelConfig, apply: Callable, layers: Any, x_BTD: jax.Array, *rest) -> jax.Array:
    """x [B, T, D] after the blocks of a stack without caches, where apply(x, *layer, *rest) is x
    after one. The arrays of `layers` have a leading layer axis."""
    block = rematerialised(apply, cfg.remat, cfg.scan_layers)

    def step(x_BTD, layer):
        return block(constrain(x_BTD, "batch", "seq", "activation"), *layer, *rest), None

    if cfg.scan_layers:
        return jax.lax.scan(step, x_BTD, layers)[0]
    for number in range(cfg.n_layers):
        x_BTD, _ = step(x_BTD, layer_of(layers, number))
    return x_BTD


def layer_of(blocks: dict, layer: int) -> dict:
    """The parameters of one block."""
    return jax.tree.map(lambda stacked: stacked[layer], blocks)


def unstack(params: dict, cfg: ModelConfig) -> dict:
    """The parameters with the stacked blocks split into a tuple of layers. This is faster for a
    program that runs many times, which otherwise slices every layer out of the stack each time.
    """
    blocks = tuple(layer_of(params["blocks"], layer) for layer in range(cfg.n_layers))
    return params | {"blocks": blocks}


def init(cfg: ModelConfig, key: jax.Array) -> dict:
    """Fresh parameters, float32, as published for `cfg.init`."""
    return Decoder(cfg).init(key, jnp.zeros((1, 1), jnp.int32))["params"]


@functools.lru_cache(maxsize=64)
def shapes(cfg: ModelConfig) -> dict:
    """The parameter tree with shapes in place of arrays; nothing is computed."""
    # All blocks have the same shapes: tracing one is enough.
    tree = jax.eval_shape(lambda: init(dataclasses.replace(cfg, n_layers=1), jax.random.key(0)))
    stack = lambda leaf: jax.ShapeDtypeStruct((cfg.n_layers, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    return tree | {"blocks": jax.tree.map(stack, tree["blocks"])}


def head_of(cfg: ModelConfig, params: dict) -> dict:
    """The parameters of the output head: those of the head, or the embedding if it is tied."""
    name = "embed" if cfg.tie_embeddings else "head"
    return {name: params[name]}


def logits(cfg: ModelConfig, head: dict, x_BTD: jax.Array) -> jax.Array:
    """`Decoder.logits` of hidden states [B, T, D], given the parameters of `head_of` only."""
    return Decoder(cfg).apply({"params": head | {"blocks": ()}}, x_BTD, method="logits")


def empty_caches(cfg: ModelConfig, batch: int, length: int, at_once: int = 1) -> list[Cache]:
    """One cache per layer for contexts of `length` tokens, with `at_once` new tokens per call."""
    return [empty_cache(cfg, layer, batch, length, at_once) for layer in range(cfg.n_layers)]
