"""A stack of L blocks: the encoder, or the decoder that also attends to the encoder's output."""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from model.encoder_decoder.cross_attention import CrossAttention, Keys
from model.encoder_decoder.relative_positions import RelativeBias
from model.transformer.config import ModelConfig
from model.transformer.decoder import in_turn, layer_of
from model.transformer.layers import MLP, Norm


@flax.struct.dataclass
class LayerCache:
    """What one decoder block remembers of each row: the keys of the source and of the target."""

    source: Keys
    target: Keys  # slot t is position t


class Block(nn.Module):
    """Self-attention A, in a decoder cross-attention C, and MLP M, each around a residual stream x:

    pre   x + A(norm(x)), x + C(norm(x), memory), x + M(norm(x))     T5
    post  norm(x + A(x)), norm(x + C(x, memory)), norm(x + M(x))     Vaswani et al. 2017
    """

    cfg: ModelConfig
    crosses: bool
    train: bool = False

    def setup(self):
        cfg = self.cfg
        self.attention, self.mlp = CrossAttention(cfg), MLP(cfg)
        self.attention_norm, self.mlp_norm = Norm(cfg), Norm(cfg)
        if self.crosses:
            self.cross, self.cross_norm = CrossAttention(cfg), Norm(cfg)
        self.dropout = nn.Dropout(cfg.dropout, deterministic=not self.train)

    def __call__(self, x_BTD, mask_BTT, bias_BHTT=None, memory_BSD=None, memory_mask_BTS=None):
        """x [B, T, D] after the block."""

        def over_itself(n_BTD):
            return self.attention(n_BTD, self.attention.keys(n_BTD), mask_BTT, bias_BHTT)

        def over_memory(n_BTD):
            return self.cross(n_BTD, self.cross.keys(memory_BSD), memory_mask_BTS)

        x_BTD = self._add(x_BTD, over_itself, self.attention_norm)
        if self.crosses:
            x_BTD = self._add(x_BTD, over_memory, self.cross_norm)
        return self._add(x_BTD, self.mlp, self.mlp_norm)

    def step(self, x_B1D, cache: LayerCache, position_B, bias_BH1T, seen_B1T, seen_B1S):
        """(x [B, 1, D] of one more token of each row, the cache with it)."""
        target = cache.target

        def over_itself(n_B1D):
            nonlocal target
            row_B, new = jnp.arange(len(position_B)), self.attention.keys(n_B1D)
            # Slices on either side of an advanced index put the row first: [B, H, C].
            target = Keys(
                target.k_BHSC.at[row_B, :, position_B].set(new.k_BHSC[:, :, 0]),
                target.v_BHSC.at[row_B, :, position_B].set(new.v_BHSC[:, :, 0]),
            )
            return self.attention(n_B1D, target, seen_B1T, bias_BH1T)

        x_B1D = self._add(x_B1D, over_itself, self.attention_norm)
        x_B1D = self._add(x_B1D, lambda n: self.cross(n, cache.source, seen_B1S), self.cross_norm)
        return self._add(x_B1D, self.mlp, self.mlp_norm), cache.replace(target=target)

    def source_keys(self, memory_BSD: jax.Array) -> Keys:
        """The keys of the source, which `step` reads from its cache."""
        return self.cross.keys(memory_BSD)

    def _add(self, x_BTD, branch, norm):
        if self.cfg.norm_position == "post":
            return norm(x_BTD + self.dropout(branch(x_BTD)))
        return x_BTD + self.dropout(branch(norm(x_BTD)))


class Stack(nn.Module):
    """L blocks with stacked parameters [L, …], the bias of relative positions that they share, and
    the last norm of a pre-norm stack. `buckets` is 0 without relative positions."""

    cfg: ModelConfig
    crosses: bool
    buckets: int = 0
    distance: int = 0
    train: bool = False

    def setup(self):
        cfg = self.cfg
        self.block = Block(cfg, self.crosses, self.train, parent=None)
        given = self.get_variable("params", "blocks")  # `self.param` accepts no adapters
        self.blocks = given or self.param("blocks", init_blocks, cfg, self.crosses)
        if self.buckets:
            sizes = cfg.n_heads, self.buckets, self.distance
            self.relative = RelativeBias(*sizes, not self.crosses, cfg.d_model**-0.5)
        if cfg.norm_position == "pre":
            self.final_norm = Norm(cfg)
        self.dropout = nn.Dropout(cfg.dropout, deterministic=not self.train)

    def __call__(
        self,
        x_BTD: jax.Array,
        mask_BTT: jax.Array,
        memory_BSD: jax.Array | None = None,
        memory_mask_BTS: jax.Array | None = None,
    ) -> jax.Array:
        """x [B, T, D] after all blocks; in a decoder, which attends to memory [B, S, D] too."""
        cfg, keys = self.cfg, self._dropout_keys()
        rest = mask_BTT, self._bias(jnp.arange(x_BTD.shape[1])[None]), memory_BSD, memory_mask_BTS

        def apply(x_BTD, params, key, *rest):
            rngs = {} if key is None else {"dropout": key}
            return self.block.apply({"params": params}, x_BTD, *rest, rngs=rngs)

        x_BTD = in_turn(cfg, apply, (self.blocks, keys), self.dropout(x_BTD), *rest)
        return self._normed(x_BTD)

    def caches(self, memory_BSD: jax.Array, length: int) -> tuple[LayerCache, ...]:
        """The cache of each block before the first of `length` target tokens."""
        rows, heads = memory_BSD.shape[0], (self.cfg.n_heads, length, self.cfg.head_dim)
        empty = jnp.zeros((rows, *heads), memory_BSD.dtype)
        of_source = functools.partial(self.block.apply, method="source_keys")
        return tuple(
            LayerCache(of_source({"params": params}, memory_BSD), Keys(empty, empty))
            for params in self._layers()
        )

    def step(self, x_B1D, caches: tuple[LayerCache, ...], position_B, seen_B1S):
        """(x [B, 1, D] of the token at position [B] of each row, the caches with it)."""
        length = caches[0].target.k_BHSC.shape[2]
        seen_B1T = (jnp.arange(length) <= position_B[:, None])[:, None]
        rest = position_B, self._bias(position_B[:, None], length), seen_B1T, seen_B1S
        extended = []
        for params, cache in zip(self._layers(), caches, strict=True):
            x_B1D, cache = self.block.apply({"params": params}, x_B1D, cache, *rest, method="step")
            extended.append(cache)
        return self._normed(x_B1D), tuple(extended)

    def _bias(self, query_BT: jax.Array, keys: int = 0) -> jax.Array | None:
        if not self.buckets:
            return None
        return self.relative(query_BT, jnp.arange(keys or query_BT.shape[1]))

    def _layers(self) -> list[dict]:
        return [layer_of(self.blocks, number) for number in range(self.cfg.n_layers)]

    def _normed(self, x_BTD: jax.Array) -> jax.Array:
        return self.final_norm(x_BTD) if self.cfg.norm_position == "pre" else x_BTD

    def _dropout_keys(self) -> jax.Array | None:
        """One key per layer [L]; None without dropout."""
        if not (self.train and self.cfg.dropout):
            return None
        return jax.random.split(self.make_rng("dropout"), self.cfg.n_layers)


def init_blocks(key: jax.Array, cfg: ModelConfig, crosses: bool) -> dict:
    """Fresh parameters of L blocks, each leaf with a leading layer axis."""
    x_BTD, mask_BTT = jnp.zeros((1, 1, cfg.d_model)), jnp.ones((1, 1, 1), bool)
    memory = (x_BTD, mask_BTT) if crosses else (None, None)
    block = Block(cfg, crosses, parent=None)
    init = lambda key: block.init(key, x_BTD, mask_BTT, None, *memory)["params"]  # noqa: E731
    return jax.vmap(init)(jax.random.split(key, cfg.n_layers))
