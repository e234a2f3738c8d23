"""Trains a plain Flax GPT, written like a good short codebase such as nanodo.

One module per block, DenseGeneral over heads, attention as two einsums, optax for the update, and a
Python loop that calls one jitted step at a time.

    JAX_PLATFORMS=cpu python -m tests.bench.race.peer_flax S1 5
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.bench.race import contestant
from tests.bench.race.shapes import Shape


class SelfAttention(nn.Module):
    shape: Shape

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        heads, width = self.shape.n_heads, self.shape.d_model // self.shape.n_heads
        project = functools.partial(nn.DenseGeneral, features=(heads, width))
        q_BTHC = project(name="query")(x_BTD) / width**0.5
        k_BTHC, v_BTHC = project(name="key")(x_BTD), project(name="value")(x_BTD)
        s_BHTS = jnp.einsum("bthc,bshc->bhts", q_BTHC, k_BTHC)
        causal_TS = jnp.tril(jnp.ones((x_BTD.shape[1],) * 2, bool))
        s_BHTS = jnp.where(causal_TS, s_BHTS, jnp.finfo(s_BHTS.dtype).min)
        o_BTHC = jnp.einsum("bhts,bshc->bthc", jax.nn.softmax(s_BHTS), v_BTHC)
        return nn.DenseGeneral(self.shape.d_model, axis=(-2, -1), name="out")(o_BTHC)


class Block(nn.Module):
    shape: Shape

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x_BTD += SelfAttention(self.shape)(nn.LayerNorm()(x_BTD))
        h_BTF = nn.gelu(nn.Dense(4 * self.shape.d_model)(nn.LayerNorm()(x_BTD)))
        return x_BTD + nn.Dense(self.shape.d_model)(h_BTF)


class GPT(nn.Module):
    shape: Shape

    @nn.compact
    def __call__(self, tokens_BT: jax.Array) -> jax.Array:
        shape = self.shape
        embed = nn.Embed(shape.vocab, shape.d_model)
        x_BTD = embed(tokens_BT)
        x_BTD += nn.Embed(shape.context, shape.d_model)(jnp.arange(tokens_BT.shape[1]))
        for _ in range(shape.n_layers):
            x_BTD = Block(shape)(x_BTD)
        return embed.attend(nn.LayerNorm()(x_BTD))


def prepare(shape: Shape) -> tuple[contestant.Advance, int]:
    model = GPT(shape)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(1e-3, b2=0.95, weight_decay=0.1)
    )
    rng = np.random.default_rng(0)
    batches = [
        rng.integers(0, shape.vocab, (shape.batch, shape.context), np.int32)
        for _ in range(shape.steps)
    ]
    params = model.init(jax.random.key(0), batches[0])
    opt_state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state, tokens_BT):
        def loss(params):
            logits_BTV = model.apply(params, tokens_BT)
            targets_BT = jnp.roll(tokens_BT, -1, axis=1)
            losses_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)
            return losses_BT.mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    def advance() -> None:
        nonlocal params, opt_state
        for tokens_BT in batches:
            params, opt_state, value = step(params, opt_state, tokens_BT)
        value.block_until_ready()

    return advance, sum(leaf.size for leaf in jax.tree.leaves(params))


if __name__ == "__main__":
    contestant.main(prepare)
