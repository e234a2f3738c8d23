"""Tests the scan with its own gradient against the plain loop, and packed rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.recurrent import language_model as recurrent
from model.recurrent.cells import CELLS, norm

TINY = recurrent.Config(vocab_size=11, context_length=5, n_layers=1, d_model=16, d_hidden=16)
B, T = 3, 5


def config(**changes) -> recurrent.Config:
    return dataclasses.replace(TINY, **changes)


def params_of(cfg: recurrent.Config) -> dict:
    """Initial parameters, all moved away from zeros and ones."""
    params = recurrent.init(cfg, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def tokens() -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 11, (B, T)))


def loop(cell, kernels, norms, x_TBX, added, keep_TB, state):
    """The recurrence as a Python loop, differentiated by jax."""
    outputs = []
    for t, (x_BX, keep_B) in enumerate(zip(x_TBX, keep_TB, strict=True)):
        plus = {"recurrent": x_BX[:, : kernels["recurrent"].shape[1]]}
        plus |= {name: bias_TBH[t] for name, bias_TBH in added.items()}

        def multiply(name, v_BH, plus=plus):
            product = v_BH @ kernels[name]
            return plus[name] + (norm(product, norms[name]) if name in norms else product)

        state = tuple(part_BH * keep_B[:, None] for part_BH in state)
        state = cell.step(multiply, norms, x_BX, state)
        outputs.append(state[0])
    return jnp.stack(outputs), state


# tests/model/recurrent/test_parity.py has the gradients of the others, without norms.
CASES = [pytest.param(c, marks=() if c == "jordan" else pytest.mark.slow) for c in CELLS]


@pytest.mark.parametrize("cell", CASES)
def test_the_scan_and_its_gradient_equal_the_loop(cell, monkeypatch):
    cfg = config(cell=cell, layer_norm=True, unroll=2)
    params, segments = params_of(cfg), jnp.array([[1] * T, [1] * 2 + [2] * 3, [1, 2] + [3] * 3])
    carry = jax.tree.map(lambda x: x + 0.5, recurrent.initial_carry(cfg, B))

    def value(params, carry, segments):
        batch = {"tokens": tokens(), "segments": segments}
        x_BTH, after = recurrent.hidden_from(cfg, params, batch, carry)
        return (x_BTH**2).sum() + sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(after))

    compute = jax.jit(jax.value_and_grad(value, (0, 1)))
    found, whole = (compute(params, carry, s) for s in (segments, jnp.ones_like(segments)))
    plain = lambda cell, unroll, *arrays: loop(cell, *arrays)  # noqa: E731
    monkeypatch.setattr(recurrent, "recurrence", plain)
    expected = jax.jit(jax.value_and_grad(value, (0, 1)))(params, carry, segments)
    assert distance(found, expected) < 1e-5
    assert distance(whole, expected) > 1e-2  # without resets


def distance(found, expected) -> float:
    """The largest difference of any array, relative to its largest value."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(jnp.abs(a - b).max() / jnp.abs(b).max()) for a, b in pairs)
