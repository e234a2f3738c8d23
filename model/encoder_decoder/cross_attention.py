"""Attention over given keys: of a decoder over its source, or of all tokens over one another."""

from typing import NamedTuple

import flax.linen as nn
import jax

from model.partitioning import constrain, ways
from model.transformer import parametrization
from model.transformer.attention import attend
from model.transformer.config import ModelConfig
from model.transformer.layers import Linear


class Keys(NamedTuple):
    """What queries attend to. The head axis comes before the key axis, as in the product."""

    k_BHSC: jax.Array
    v_BHSC: jax.Array


class CrossAttention(nn.Module):
    """Multi-head attention of tokens x over tokens y: Vaswani et al. 2017, section 3.2.

    The mask alone decides what is seen: y = x with a causal mask is a decoder's self-attention, y =
    x with a mask of padding is an encoder's. The initial scores do not depend on `query_scale`: T5,
    which does not scale them, draws its queries from a narrower distribution instead.
    """

    cfg: ModelConfig

    def setup(self):
        cfg = self.cfg
        width, bias = cfg.n_heads * cfg.head_dim, cfg.attention_bias
        gain = cfg.head_dim**-0.5 / parametrization.scores(cfg)
        self.query = Linear(cfg, width, bias, gain=gain)
        self.key, self.value = Linear(cfg, width, bias), Linear(cfg, width, bias)
        self.out = Linear(cfg, cfg.d_model, bias, residual=True)

    def keys(self, y_BSD: jax.Array) -> Keys:
        """The keys and values of y."""
        return Keys(self._heads(self.key(y_BSD)), self._heads(self.value(y_BSD)))

    def __call__(
        self,
        x_BTD: jax.Array,
        keys: Keys,
        mask_BTS: jax.Array,
        bias_BHTS: jax.Array | None = None,
    ) -> jax.Array:
        """The output [B, T, D]. The mask is True where a query sees a key; the bias, whose first
        axis may be 1, is added to the scores."""
        q_BHTC = self._heads(self.query(x_BTD)) * parametrization.scores(self.cfg)
        o_BHTC = attend(q_BHTC, *keys, mask_BTS, bias_BHTS, 0.0)
        return self.out(o_BHTC.swapaxes(1, 2).reshape(*x_BTD.shape[:2], -1))

    def _heads(self, x_BTX: jax.Array) -> jax.Array:
        x_BTHC = x_BTX.reshape(*x_BTX.shape[:2], self.cfg.n_heads, self.cfg.head_dim)
        if self.cfg.n_heads % ways("heads") == 0:
            x_BTHC = constrain(x_BTHC, "batch", "seq", "heads", None)
        return x_BTHC.swapaxes(1, 2)
