"""Tests the training step: accumulation, chunks, traced hyperparameters, loss and evaluation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.transformer.config import ModelConfig
from tests.train.steps import decoder_step
from train import step as step_module
from train.objectives import next_token
from train.objectives.cross_entropy import training_loss
from train.step import eval_sums, train_chunk

# These tests spend most of their time on compilation.
# Jitted, because they take ten times as long operation by operation.
gradients = jax.jit(step_module.gradients, static_argnums=2)
init_state = jax.jit(step_module.init_state, static_argnums=0)
train_step = jax.jit(step_module.train_step, static_argnums=0)
MODEL = ModelConfig(
    vocab_size=17, context_length=8, n_layers=2, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=32, init_std=0.2,
)  # fmt: skip
HYPER = dict(
    learning_rate=1e-2, warmup=2, decay=2, total=10, final=0.1, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip


def hyper(**changes) -> dict:
    return {k: np.float32(v) for k, v in (HYPER | changes).items()}


def batches(steps: int, rows: int = 4, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    shape = (steps, rows, MODEL.context_length)
    tokens = rng.integers(0, MODEL.vocab_size, shape).astype(np.int32)
    weights = rng.random(shape).astype(np.float32)
    return {"tokens": tokens, "targets": np.roll(tokens, -1, -1), "weights": weights}


def one(chunk: dict, i: int = 0) -> dict:
    return {k: v[i] for k, v in chunk.items()}


def largest_difference(a, b) -> float:
    differences = jax.tree.map(lambda x, y: np.abs(x - y).max(), *jax.device_get((a, b)))
    return float(max(jax.tree.leaves(differences)))


def test_accumulated_gradient_is_that_of_one_batch():
    params = init_state(decoder_step(MODEL), hyper(), jnp.uint32(0)).params
    batch, key = one(batches(1, rows=8)), jax.random.key(0)
    whole, means = gradients(params, {}, decoder_step(MODEL), batch, key)
    for parts in (2, 8):
        cfg = decoder_step(MODEL, accumulation=parts)
        split, split_means = gradients(params, {}, cfg, batch, key)
        assert largest_difference(whole, split) < 1e-6
        assert means.keys() == split_means.keys() == {"loss"}
        assert float(means["loss"]) == pytest.approx(float(split_means["loss"]), rel=1e-6)
    # Control: averaging the micro-batches' own means is not the same when weights differ.
    first = np.arange(8)[:, None] < 4
    halves = [batch | {"weights": batch["weights"] * rows} for rows in (first, ~first)]
    means = [gradients(params, {}, decoder_step(MODEL), half, key)[0] for half in halves]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *jax.device_get(means))
    assert largest_difference(whole, mean) > 1e-4


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
def test_chunk_equals_steps_one_after_another(optimizer):
    cfg, data = decoder_step(MODEL, optimizer=optimizer), batches(5)
    state = init_state(cfg, hyper(), jnp.uint32(0))
    losses = []
    for i in range(3):
        state, metrics = train_step(cfg, state, one(data, i))
        losses.append(float(metrics["loss"]))
    fresh = init_state(cfg, hyper(), jnp.uint32(0))
    chunked, rows = train_chunk(cfg, fresh, data, jnp.int32(3))
    assert int(chunked.step) == 3
    np.testing.assert_allclose(rows["loss"][:3], losses, rtol=1e-6)
    assert largest_difference(state.params, chunked.params) < 1e-6
    assert np.all(rows["loss"][3:] == 0)
    # Control: another step gives a different state.
    more, _ = train_chunk(cfg, init_state(cfg, hyper(), jnp.uint32(0)), data, jnp.int32(4))
    assert largest_difference(state.params, more.params) > 1e-3


def test_one_program_serves_every_hyperparameter():
    cfg, data = decoder_step(MODEL, next_token.Config(z_loss=1e-3), schedule="linear"), batches(4)
    before = train_chunk._cache_size()
    results = []
    for changes in ({}, {"learning_rate": 0.03}, {"b2": 0.5}, {"total": 99}, {"weight_decay": 1}):
        state = init_state(cfg, hyper(**changes), jnp.uint32(0))
        results.append(train_chunk(cfg, state, data, jnp.int32(4))[0].params)
    assert train_chunk._cache_size() == before + 1
    for other in results[1:]:
        assert largest_difference(results[0], other) > 1e-6


def test_seed_decides_initialisation_and_dropout():
    cfg = decoder_step(ModelConfig(**{**vars(MODEL), "dropout": 0.5}))
    data = one(batches(1))
    states = [init_state(cfg, hyper(), jnp.uint32(seed)) for seed in (3, 3, 4)]
    same, again, other = (train_step(cfg, state, data)[1]["loss"] for state in states)
    assert same == again != other
    # Dropout differs from step to step: same parameters, later step, other loss.
    later = states[0].replace(step=jnp.int32(1))
    assert train_step(cfg, later, data)[1]["loss"] != same


def test_training_loss_against_its_definition():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 5)).astype(np.float32) * 3
    targets = rng.integers(0, 5, (2, 3))
    z = np.log(np.exp(logits).sum(-1))
    log_p = logits - z[..., None]
    nll = -np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    smooth = 0.9 * nll - 0.1 * log_p.mean(-1) + 1e-2 * z**2
    loss, plain = training_loss(jnp.asarray(logits), jnp.asarray(targets), 1e-2, 0.1)
    np.testing.assert_allclose(loss, smooth, rtol=1e-5)
    np.testing.assert_allclose(plain, nll, rtol=1e-5)
    assert np.abs(np.asarray(loss) - nll).max() > 0.01  # control: both terms count


def test_evaluation_ignores_rows_of_weight_zero():
    cfg, data = decoder_step(MODEL), batches(2)
    params = init_state(cfg, hyper(), jnp.uint32(0)).params
    data["weights"][1, 2:] = 0
    sums = eval_sums(cfg, params, {}, data)
    assert sums.keys() == {"nats", "weights"} and sums["nats"].shape == (2, 4)
    assert np.all(np.asarray(sums["nats"])[1, 2:] == 0)
    assert np.all(np.asarray(sums["weights"])[1, 2:] == 0)
    full = eval_sums(cfg, params, {}, data | {"weights": np.ones_like(data["weights"])})
    assert np.all(np.asarray(full["nats"])[1, 2:] > 0)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_packed_documents_are_scored_as_they_are_apart(positions):
    """Evaluation uses the segments and positions of a batch."""
    cfg = decoder_step(dataclasses.replace(MODEL, positions=positions))
    params = init_state(cfg, hyper(), jnp.uint32(0)).params
    apart = one(batches(1, rows=2))
    cut = [5, 3]  # tokens of each document
    for row, length in enumerate(cut):
        apart["weights"][row, length:] = 0
    packed = {k: np.concatenate([v[0, :5], v[1, :3]])[None] for k, v in apart.items()}
    packed["segments"] = np.repeat([[0, 1]], cut, axis=1).astype(np.int32)
    packed["positions"] = np.concatenate([np.arange(n) for n in cut])[None].astype(np.int32)

    def nats(batch):
        sums = eval_sums(cfg, params, {}, {k: v[None] for k, v in batch.items()})
        return float(sums["nats"].sum())

    def without(field):
        return nats({k: v for k, v in packed.items() if k != field})

    assert nats(packed) == pytest.approx(nats(apart), rel=1e-5)
    # Control: without its segments the second document sees the first.
    assert abs(without("segments") / nats(apart) - 1) > 1e-3
    if positions == "learned":  # rotary positions are relative
        assert abs(without("positions") / nats(apart) - 1) > 1e-3


def test_loss_falls_on_a_language_that_can_be_learned():
    cfg = decoder_step(MODEL)
    tokens = np.tile(np.arange(8, dtype=np.int32), (60, 4, 1))
    data = {"tokens": tokens, "targets": (tokens + 1) % 17, "weights": np.ones((60, 4, 8), "f4")}
    state = init_state(cfg, hyper(total=60), jnp.uint32(0))
    _, rows = train_chunk(cfg, state, data, jnp.int32(60))
    assert rows["loss"][0] > 2.5 and rows["loss"][-1] < 0.1


def test_step_is_a_pure_module_level_function():
    """Tracing or running the step has no side effects."""
    assert step_module.train_step.__module__ == "train.step"
    cfg, data = decoder_step(MODEL), one(batches(1))
    state = init_state(cfg, hyper(), jnp.uint32(0))
    traced = jax.make_jaxpr(step_module.train_step, static_argnums=0)
    assert str(traced(cfg, state, data)) == str(traced(cfg, state, data))
    first, second = (train_step(cfg, state, data)[0].params for _ in range(2))
    assert largest_difference(first, second) == 0
