"""Tests supervised fine-tuning: next-token prediction on the targets of conversations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from data.kinds import KINDS
from launch.chat.template import filled
from model.transformer.config import ModelConfig
from model.transformer.decoder import init
from tests.train.steps import decoder_step
from train import step as step_module

T = 128
MODEL = ModelConfig(
    vocab_size=256, context_length=T, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=32, init_std=0.2, positions="rotary",
)  # fmt: skip
KEY = jax.random.key(0)
gradients = jax.jit(step_module.gradients, static_argnums=2)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: init(MODEL, key))(KEY)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def make(**changes):
        config = base.get_config(kind="conversations")
        config.data.cache, config.model.context_length = str(cache), T
        config.data.corpora = ("task:style:examples=60", "task:letter_counting:examples=60")
        config.train.batch_size = 8
        config.data.update(changes)
        kind = KINDS["conversations"]
        return kind.prepare(filled(config.data), progress=False).for_run(config)

    return make


def difference(one, other) -> float:
    apart = jax.tree.map(lambda x, y: np.abs(x - y).max(), *jax.device_get((one, other)))
    return float(max(jax.tree.leaves(apart)))


def test_micro_batches_of_unequal_lengths_give_the_gradient_of_one(params, opened):
    batch = opened().batch("train", 0, 0)
    counts = batch["weights"].sum(-1)
    assert counts.max() > 4 * counts.min()
    whole, means = gradients(params, {}, decoder_step(MODEL), batch, KEY)
    for parts in (2, 4):
        split, others = gradients(params, {}, decoder_step(MODEL, accumulation=parts), batch, KEY)
        assert difference(whole, split) < 1e-6
        assert float(others["loss"]) == pytest.approx(float(means["loss"]), rel=1e-6)
    # Control: the mean of the micro-batches' own means is another gradient.
    halves = [{name: x[half] for name, x in batch.items()} for half in (np.s_[:4], np.s_[4:])]
    own = [gradients(params, {}, decoder_step(MODEL), half, KEY)[0] for half in halves]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *jax.device_get(own))
    assert difference(whole, mean) > 1e-5


def test_packed_conversations_have_the_loss_that_they_have_apart(params, opened):
    packed, padded = opened(rows="packed"), opened(rows="padded")
    row = np.flatnonzero(np.diff(packed.rows.begins) > 2)[:1]
    numbers, row_p, place_p = packed.rows.of(row)
    together = packed._filled("train", numbers, row_p, place_p, 1)
    apart = padded._filled("train", numbers, np.arange(len(numbers)), place_p * 0, len(numbers))
    assert together["weights"].sum() == apart["weights"].sum() > 0
    cfg = decoder_step(MODEL)
    losses, found = [], []
    for batch in (together, apart):
        gradient, means = gradients(params, {}, cfg, batch, KEY)
        losses.append(float(means["loss"]))
        found.append(gradient)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert difference(*found) < 1e-6
    # Control: without segments, conversations see those before them in their row.
    names = ("tokens", "targets", "weights", "positions")
    _, seen = gradients(params, {}, cfg, {name: together[name] for name in names}, KEY)
    assert abs(float(seen["loss"]) - losses[0]) > 1e-5


def test_masked_targets_change_nothing(params, opened):
    batch, cfg = opened(template="chatml").batch("train", 0, 1), decoder_step(MODEL)
    masked = batch["weights"] == 0
    assert masked.any() and (batch["weights"] > 0).any()
    other = batch | {"targets": np.where(masked, (batch["targets"] + 7) % 256, batch["targets"])}
    mine, theirs = (gradients(params, {}, cfg, one, KEY) for one in (batch, other))
    assert difference(mine, theirs) == 0
    # Control: a target that counts changes the gradient.
    counted = np.where(masked, batch["targets"], (batch["targets"] + 7) % 256)
    changed = gradients(params, {}, cfg, batch | {"targets": counted}, KEY)
    assert difference(mine[0], changed[0]) > 1e-4


def test_logits_of_masked_positions_have_zero_gradient(opened):
    """The loss of next_token with respect to the logits, on its own."""
    from train.objectives.cross_entropy import training_loss

    batch = opened(template="gemma").batch("train", 0, 2)
    logits_BTV = np.random.default_rng(0).normal(size=(8, T, 256)).astype(np.float32)

    def loss(logits_BTV):
        nats_BT, _ = training_loss(logits_BTV, batch["targets"], 0.0, 0.0)
        return (nats_BT * batch["weights"]).sum()

    gradient_BTV = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(logits_BTV)))
    largest_BT = np.abs(gradient_BTV).max(-1)
    assert (largest_BT[batch["weights"] == 0] == 0).all()
    assert (largest_BT[batch["weights"] > 0] > 0).all()
