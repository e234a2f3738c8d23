"""Tests counts of parameters and FLOPs against examples worked by hand and XLA's count."""

import jax
import jax.numpy as jnp
import pytest

from model.recurrent import language_model as recurrent
from model.recurrent.cells import CELLS


def config(cell: str, **changes) -> recurrent.Config:
    """V = 10, D = 4, H = 3, L = 2, with a head of its own."""
    sizes = dict(vocab_size=10, n_layers=2, d_model=4, d_hidden=3, tie_embeddings=False)
    return recurrent.Config(cell=cell, **sizes | changes)


# (input, recurrent, weights of the layers' matrices), with X = G H:
# X D + X H + 2 X; 2 (H X), for a GRU and a Jordan network + 2 H of biases; without biases.
BY_HAND = {
    "elman": (12 + 9 + 6, 2 * 9, 12 + 9 + 18),
    "jordan": (12 + 9 + 6, 2 * (9 + 9 + 3), 12 + 9 + 36),
    "gru": (36 + 27 + 18, 2 * (27 + 3), 36 + 27 + 54),
    "lstm": (48 + 36 + 24, 2 * 36, 48 + 36 + 72),
}


@pytest.mark.parametrize("cell", CELLS)
def test_counts_by_hand(cell):
    inputs, inside, matrices = BY_HAND[cell]
    cfg, total = config(cell), 40 + inputs + inside + 30
    counted = {"embedding": 40, "input": inputs, "recurrent": inside, "norm": 0, "head": 30}
    assert recurrent.parameters(cfg) == counted
    assert recurrent.flops(cfg) == {
        "6nd": 6 * total,
        "kaplan": 6 * matrices,
        "chinchilla": 6 * (matrices + 40 + 30),
        "palm": 6 * total,
    }
    assert recurrent.matmul_flops(cfg) == 6 * (matrices + 30)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_parameters_are_those_made(cell, layer_norm, tied):
    cfg = config(cell, layer_norm=layer_norm, tie_embeddings=tied, d_model=3)
    shapes = jax.eval_shape(lambda: recurrent.init(cfg, jax.random.key(0)))
    made = {name: sum(leaf.size for leaf in jax.tree.leaves(of)) for name, of in shapes.items()}
    assert sum(recurrent.parameters(cfg).values()) == sum(made.values())
    assert recurrent.parameters(cfg)["head"] == made.get("head", 0)


@pytest.mark.parametrize(
    "cell", [pytest.param(c, marks=() if c == "lstm" else pytest.mark.slow) for c in CELLS]
)
def test_matmul_flops_are_those_that_xla_counts(cell):
    """XLA counts the body of a loop once, so all time steps are unrolled. It also counts the gates,
    and leaves out the products with the zero state before the first step. A smaller vocabulary than
    the 128 tokens would be multiplied once."""
    sizes = dict(vocab_size=128, d_model=64, d_hidden=64, context_length=8, unroll=8)
    cfg, tokens = config(cell, **sizes), jnp.zeros((16, 8), jnp.int32)

    def loss(params):
        x_BTH = recurrent.hidden(cfg, params, {"tokens": tokens})
        return (recurrent.logits(cfg, recurrent.head(cfg, params), x_BTH) ** 2).sum()

    params = jax.eval_shape(lambda: recurrent.init(cfg, jax.random.key(0)))
    counted = jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"]
    expected = recurrent.matmul_flops(cfg) * tokens.size
    assert abs(counted / expected - 1) < 0.03
    # Negative control: without the recurrent products.
    without = 6 * sum(k.size for n, k in jax.tree.leaves_with_path(params) if "recurrent" in str(n))
    assert abs(counted / (expected - without * tokens.size) - 1) > 0.1
