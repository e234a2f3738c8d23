"""Tests supervised fine-tuning: next-token prediction on the targets of conversations.

`python -m tests.train.objectives.test_sft CACHE` prints what the test of eight devices reads.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

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
from train.loop import initial_state
from train.parallel import sharding
from train.parallel.mesh import make_mesh

T = 128
MODEL = ModelConfig(
    vocab_size=256, context_length=T, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=32, init_std=0.2, positions="rotary",
)  # fmt: skip
KEY = jax.random.key(0)
HYPER = dict(
    learning_rate=1e-2, warmup=1, decay=1, total=20, final=0.1, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
gradients = jax.jit(step_module.gradients, static_argnums=2)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda key: init(MODEL, key))(KEY)


def conversations(cache: str, **changes):
    config = base.get_config(kind="conversations")
    config.data.cache, config.model.context_length = cache, T
    config.data.corpora = ("task:style:examples=60", "task:letter_counting:examples=60")
    config.train.batch_size = 8
    config.data.update(changes)
    kind = KINDS["conversations"]
    return kind.prepare(filled(config.data), progress=False).for_run(config)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return functools.partial(conversations, str(tmp_path_factory.mktemp("cache")))


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


def losses(dataset, sizes: dict[str, int], seed: int = 0) -> list[float]:
    """The losses of six steps on a mesh."""
    devices = int(np.prod(list(sizes.values())))
    mesh = make_mesh(sizes, jax.devices()[:devices])
    cfg = decoder_step(MODEL)
    batches = dataset.batches("train", seed, 0, 6)
    with sharding.activation_rules(mesh):
        state = initial_state(cfg, HYPER, 0, mesh)[1]()
        placed = jax.device_put(batches, sharding.batch_shardings(mesh, dataset.spec()))
        _, metrics = step_module.train_chunk(cfg, state, placed, jnp.int32(6))
    return np.asarray(metrics["loss"]).tolist()


@pytest.mark.slow
def test_eight_devices_train_as_one(tmp_path):
    """Rows have unequal numbers of targets, so a mean of the devices' own means would differ."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.objectives.test_sft", str(tmp_path)],
        env=os.environ | {"XLA_FLAGS": flags}, cwd=Path(__file__).parents[3],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name in ("padded", "packed"):
        one, *others = found[name]
        for other in others:
            np.testing.assert_allclose(other, one, rtol=0, atol=1e-5)
        assert abs(one[-1] - one[0]) > 1e-2
        control = np.abs(np.subtract(found[f"{name} of another seed"][0], one)).max()
        assert control > 1e-3
    assert np.ptp(found["targets of a device"]) > 10


def main(cache: str) -> None:
    found, meshes = {}, ({"data": 1}, {"data": 2, "fsdp": 4}, {"data": 4, "tensor": 2})
    for rows in ("padded", "packed"):
        dataset = conversations(cache, rows=rows)
        found[rows] = [losses(dataset, sizes) for sizes in meshes]
        found[f"{rows} of another seed"] = [losses(dataset, meshes[1], seed=1)]
    weights = conversations(cache).batch("train", 0, 0)["weights"]
    found["targets of a device"] = weights.sum(-1).tolist()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
