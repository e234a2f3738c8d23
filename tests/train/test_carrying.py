"""Tests truncated backpropagation through time: the state that goes from step to step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.recurrent import language_model as recurrent
from tests.train.test_step import hyper, largest_difference, one
from train.objectives import next_token
from train.objectives.carrying import Carrying
from train.step import StepConfig, eval_sums, gradients, init_state, train_step

B, T, K = 4, 6, 3
MODEL = recurrent.Config(13, T, "lstm", 1, 8, 8, carry_state=True)
CFG = StepConfig(MODEL, next_token.Config(), "recurrent", "next_token", carried_rows=B)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def state():
    return jax.jit(init_state, static_argnums=0)(CFG, hyper(), jnp.uint32(0))


@pytest.fixture(scope="module")
def windows() -> dict:
    """K batches, each of which goes on where the one before ended."""
    tokens_BT = np.random.default_rng(0).integers(0, 13, (B, K * T + 1)).astype(np.int32)
    cut = lambda rows: rows.reshape(B, K, T).swapaxes(0, 1)  # noqa: E731
    fields = {"tokens": cut(tokens_BT[:, :-1]), "targets": cut(tokens_BT[:, 1:])}
    return fields | {"weights": np.ones((K, B, T), np.float32)}


def joined(windows: dict) -> dict:
    """The batches as one batch of long rows."""
    return {name: array.swapaxes(0, 1).reshape(B, -1) for name, array in windows.items()}


def test_evaluation_over_windows_equals_one_pass(state, windows):
    nats_KB = eval_sums(CFG, state.params, {}, windows)["nats"]
    reset = dataclasses.replace(CFG, carried_rows=0)
    (whole_B,) = eval_sums(
        reset, state.params, {}, {k: v[None] for k, v in joined(windows).items()}
    )["nats"]
    assert np.abs(nats_KB.sum(0) - whole_B).max() < 2e-5
    # Negative control: the state reset at each window.
    assert np.abs(eval_sums(reset, state.params, {}, windows)["nats"].sum(0) - whole_B).max() > 1e-3


def test_the_gradient_ends_at_the_beginning_of_the_window(state, windows):
    first, second = one(windows, 0), one(windows, 1)

    def loss(params, before):
        """The mean loss of the second window, after the first by other parameters."""
        _, carry = recurrent.hidden_from(MODEL, before, first, recurrent.initial_carry(MODEL, B))
        model = Carrying(recurrent, carry)
        return next_token.loss(model, params, {}, CFG, second, KEY)[0] / (B * T)

    compute = jax.jit(gradients, static_argnums=2)
    inside, across = jax.jit(jax.grad(loss, (0, 1)))(state.params, state.params)
    _, means = compute(state.params, {}, CFG, first | {"carry": state.carry}, KEY)
    found, _ = compute(state.params, {}, CFG, second | {"carry": means["carry"]}, KEY)
    assert largest_difference(found, inside) < 1e-6
    # What the cut leaves out, as one pass over both windows has it.
    whole = jax.tree.map(jnp.add, inside, across)
    assert largest_difference(found, whole) > 1e-3


@pytest.mark.slow
def test_micro_batches_carry_their_rows(state, windows):
    carry = jax.tree.map(lambda x: x + jnp.arange(B)[:, None] / B, state.carry)
    batch = one(windows) | {"carry": carry}
    whole, means = gradients(state.params, {}, CFG, batch, KEY)
    split_cfg = dataclasses.replace(CFG, accumulation=2)
    split, split_means = gradients(state.params, {}, split_cfg, batch, KEY)
    assert largest_difference(whole, split) < 1e-6
    assert largest_difference(means["carry"], split_means["carry"]) < 1e-6
    assert largest_difference(means["carry"], carry) > 1e-2


@pytest.mark.slow
def test_a_step_keeps_the_state_after_it(state, windows):
    after, metrics = jax.jit(train_step, static_argnums=0)(CFG, state, one(windows))
    batch = one(windows)
    _, expected = recurrent.hidden_from(MODEL, state.params, batch, state.carry)
    assert largest_difference(after.carry, expected) < 1e-6
    assert "carry" not in metrics


def test_an_objective_may_read_a_batch_once(state, windows):
    model = Carrying(recurrent, state.carry)
    model.hidden(MODEL, state.params, one(windows))
    with pytest.raises(ValueError, match="carry_state=True needs an objective that reads each"):
        model.hidden(MODEL, state.params, one(windows))
