"""Tests training steps of reward models, DPO and distillation on a small decoder: micro-batches,
frozen parameters, values that are stored, and eight devices."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.fields import Field
from launch.config import config_file
from model.adapters.adapted import Adapter
from model.transformer import family as decoder
from model.transformer.config import ModelConfig
from train.objectives import distill
from train.objectives.preference import dpo, reward, stored
from train.parallel import sharding
from train.parallel.mesh import make_mesh
from train.step import StepConfig, TrainState, gradients, init_state, train_chunk

ROWS, LENGTH, VOCAB = 8, 12, 31
MODEL = ModelConfig(VOCAB, LENGTH, 1, 16, 2, 2, 8, 32, positions="rotary", norm="rmsnorm")
LARGER = replace(MODEL, d_model=32, head_dim=16, d_ff=64)
SCALAR = replace(MODEL, n_classes=1)
TEACHER = (("teacher", "decoder", LARGER),)
# Objective → (what its loss reads, the model, the frozen models).
CASES = {
    "dpo": (dpo.Loss(beta=0.5), MODEL, (("reference", "decoder", MODEL),)),
    "reward": (reward.Config(0.05), SCALAR, ()),
    "distill": (distill.Loss("jensen_shannon", 0.3, 2.0, 0.2, chunk=3), MODEL, TEACHER),
}  # fmt: skip
HYPER = dict(
    learning_rate=3e-3, warmup=1, decay=1, total=20, final=0.1, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip


def step_of(name: str, **changes) -> StepConfig:
    loss, model, frozen = CASES[name]
    return StepConfig(model, loss, "decoder", name, frozen=frozen, **changes)


def batch_of(seed: int = 0, rows: int = ROWS) -> dict[str, np.ndarray]:
    """Pairs of unequal lengths, of which the second fills up the batch; and rows of text."""
    rng = np.random.default_rng(seed)
    fields, place = {}, np.arange(LENGTH)
    for side in ("chosen", "rejected"):
        ends = rng.integers(4, LENGTH, rows)[:, None]
        fields[side] = (rng.integers(1, VOCAB, (rows, LENGTH)) * (place < ends)).astype(np.int32)
        weights = ((place >= 2) & (place < ends - 1)).astype(np.float32)
        weights[1] = 0
        fields[f"{side}_weights"] = weights
    fields["margin"] = rng.uniform(0, 1, rows).astype(np.float32)
    text = rng.integers(1, VOCAB, (rows, LENGTH + 1)).astype(np.int32)
    counted = (place < rng.integers(1, LENGTH, rows)[:, None]).astype(np.float32)
    return fields | {"tokens": text[:, :-1], "targets": text[:, 1:], "weights": counted}


def weights_of(cfg: StepConfig) -> tuple[dict, dict]:
    """(parameters, frozen parameters), all different."""
    frozen = {
        name: decoder.init(model, jax.random.key(5)) for name, _, model in cfg.frozen
    }  # fmt: skip
    larger = lambda x: 2 * x  # noqa: E731  # so that the losses are far from their start
    return jax.tree.map(larger, decoder.init(cfg.model, jax.random.key(1))), frozen


def apart(tree, other) -> float:
    """The largest distance of two trees, as a share of the largest value of the second."""
    largest = lambda tree: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))  # noqa: E731
    return largest(jax.tree.map(jnp.subtract, tree, other)) / largest(other)


gradients_of = jax.jit(gradients, static_argnums=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_micro_batches_of_unequal_weight_have_the_gradient_of_the_whole(name):
    params, frozen = weights_of(step_of(name))
    key, batch = jax.random.key(0), batch_of()
    whole, means = gradients_of(params, frozen, step_of(name), batch, key)
    for parts in (2, 4):
        cfg = step_of(name, accumulation=parts)
        split, others = gradients_of(params, frozen, cfg, batch, key)
        assert apart(split, whole) < 1e-6
        np.testing.assert_allclose(others["loss"], means["loss"], rtol=1e-6)
    # Control: the mean of the micro-batches' own gradients is another one.
    halves = []
    for rows in (np.arange(ROWS) < ROWS // 2, np.arange(ROWS) >= ROWS // 2):
        part = {k: x * rows[:, None] if k.endswith("weights") else x for k, x in batch.items()}
        halves.append(gradients_of(params, frozen, step_of(name), part, key)[0])
    assert apart(jax.tree.map(lambda a, b: (a + b) / 2, *halves), whole) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "distill"])
def test_logits_in_chunks_give_the_same_gradient(name):
    cfg, key = step_of(name), jax.random.key(0)
    of = {chunk: replace(cfg, loss=replace(cfg.loss, chunk=chunk)) for chunk in (0, 3)}
    params, frozen = weights_of(cfg)
    found = gradients_of(params, frozen, of[3], batch_of(), key)[0]
    assert apart(found, gradients_of(params, frozen, of[0], batch_of(), key)[0]) < 1e-6
    other = gradients_of(params, frozen, of[0], batch_of(1), key)[0]  # control
    assert apart(found, other) > 1e-3


def test_stored_log_probabilities_equal_those_of_the_frozen_reference():
    cfg, batch, key = step_of("dpo"), batch_of(), jax.random.key(0)
    params, frozen = weights_of(cfg)
    computed = gradients_of(params, frozen, cfg, batch, key)
    given = batch | dpo.reference(frozen, cfg, batch)
    without = replace(cfg, frozen=())
    stored = gradients_of(params, {}, without, given, key)
    assert apart(stored[0], computed[0]) < 1e-6
    np.testing.assert_allclose(stored[1]["margin"], computed[1]["margin"], rtol=1e-5)
    given["chosen_reference"] += 1e-2  # control
    other = gradients_of(params, {}, without, given, key)[0]
    assert apart(other, computed[0]) > 1e-5


def test_the_loss_of_a_policy_that_is_its_reference_is_log_two():
    cfg, (params, _) = step_of("dpo"), weights_of(step_of("dpo"))
    means = gradients_of(params, {"reference": params}, cfg, batch_of(), jax.random.key(0))[1]
    assert float(means["loss"]) == pytest.approx(np.log(2), abs=1e-6)
    assert float(means["margin"]) == pytest.approx(0, abs=1e-6)


def test_a_reference_that_is_quantised_has_stored_values_of_its_own():
    config = config_file.load_config(
        "configs/base.py", {"objective.name": "dpo", "data.kind": "preferences"}
    )
    dataset, paths = SimpleNamespace(hash="of the data"), set()
    for dtype in ("", "int8", "nf4"):
        cfg = step_of("dpo", adapter=Adapter("lora", base_dtype=dtype), from_base=("reference",))
        paths.add(stored._path(config, cfg, dataset))
        other = replace(cfg, from_base=())  # a reference of its own, which is not quantised
        assert stored._path(config, other, dataset) == stored._path(config, step_of("dpo"), dataset)
    assert len(paths) == 3


def fields_of() -> dict[str, Field]:
    return {
        name: Field(x.shape[1:], x.dtype, ("seq",) * (x.ndim - 1)) for name, x in batch_of().items()
    }


def trained(name: str, mesh: jax.sharding.Mesh, seed: int = 0) -> tuple[TrainState, list, dict]:
    """(the state after six steps, losses, the frozen parameters before them) on a mesh."""
    cfg = step_of(name)
    params, frozen = weights_of(cfg)
    state = init_state(
        cfg, {k: jnp.float32(v) for k, v in HYPER.items()}, jnp.uint32(0), params, frozen
    )
    before = jax.tree.map(np.asarray, state.frozen)
    where = sharding.state_shardings(jax.eval_shape(lambda: state), cfg.axes, cfg.frozen_axes, mesh)
    batches = [batch_of(seed + step) for step in range(6)]
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    with sharding.activation_rules(mesh):
        state = jax.device_put(state, where)
        placed = jax.device_put(stacked, sharding.batch_shardings(mesh, fields_of()))
        state, metrics = train_chunk(cfg, state, placed, jnp.int32(6))
    return state, np.asarray(metrics["loss"]).tolist(), before


@pytest.mark.parametrize("name", ["dpo", pytest.param("distill", marks=pytest.mark.slow)])
def test_frozen_parameters_stay_as_they_are_to_the_bit(name):
    cfg, mesh = step_of(name), make_mesh({"data": 1, "fsdp": 1}, jax.devices()[:1])
    params, _ = weights_of(cfg)
    state, _, before = trained(name, mesh)
    for kept, given in zip(jax.tree.leaves(state.frozen), jax.tree.leaves(before), strict=True):
        assert np.asarray(kept).tobytes() == given.tobytes()
    assert apart(state.params, params) > 1e-3  # control: the others have moved


def main(name: str, devices: int, seed: int) -> None:
    mesh = make_mesh(
        {"data": 2, "fsdp": 4} if devices == 8 else {"data": 1}, jax.devices()[:devices]
    )
    state, losses, _ = trained(name, mesh, seed)
    params = jax.device_get(state.params)
    total = sum(float(np.abs(x).sum()) for x in jax.tree.leaves(params))
    print(json.dumps({"losses": losses, "total": total}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpo", "reward", "distill"])
def test_eight_devices_train_as_one(name):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    found = {}
    for devices, seed in ((1, 0), (8, 0), (8, 1)):
        command = [sys.executable, "-m", "tests.train.objectives.test_preference_steps"]
        done = subprocess.run(
            [*command, name, str(devices), str(seed)], capture_output=True, text=True,
            cwd=Path(__file__).parents[3], env=environment, check=True,
        )  # fmt: skip
        found[devices, seed] = json.loads(done.stdout)
    np.testing.assert_allclose(found[8, 0]["losses"], found[1, 0]["losses"], atol=1e-5)
    assert abs(found[8, 0]["total"] / found[1, 0]["total"] - 1) < 1e-5
    other = np.abs(np.subtract(found[8, 1]["losses"], found[1, 0]["losses"])).max()  # control
    assert other > 1e-4


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
