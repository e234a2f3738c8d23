"""Tests of training with adapters: what changes, what does not, micro-batches, sharded bases."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.adapters.adapted import Adapted, Adapter
from model.transformer import family as decoder
from model.transformer.config import ModelConfig
from tests.train.steps import decoder_step
from train.loop import Start, initial_state
from train.objectives.preference import dpo
from train.parallel import memory
from train.parallel.sharding import activation_rules, make_mesh, parameter_specs
from train.step import BASE, StepConfig, TrainState, eval_sums, loss_sums, train_chunk

MODEL = ModelConfig(32, 8, 1, 256, 2, 2, 128, 256, positions="rotary", norm="rmsnorm", gated=True)
ADAPTER = Adapter("lora", rank=2, dora=True, base_dtype="nf4")
HYPER = dict(
    learning_rate=1e-2, warmup=0, decay=0, total=20, final=1.0, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
STEPS = 2
ROOT = Path(__file__).resolve().parents[2]
EIGHT = "--xla_force_host_platform_device_count=8"


def batches() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 32, (STEPS, 8, 9)).astype(np.int32)
    weights = (rng.random((STEPS, 8, 8)) < 0.7).astype(np.float32)
    return {"tokens": tokens[..., :-1], "targets": tokens[..., 1:], "weights": weights}


def begun(cfg: StepConfig, mesh) -> TrainState:
    params = jax.tree.map(np.asarray, decoder.init(cfg.model, jax.random.key(0)))
    trained, base = Adapted(decoder, cfg.adapter).split(cfg.model, params, 1)
    like, make = initial_state(cfg, HYPER, 0, mesh, Start(trained, {BASE: base}))
    put = lambda x, to: jax.device_put(x, to.sharding)  # noqa: E731
    return make().replace(frozen=jax.tree.map(put, {BASE: base}, like.frozen))


def trained_on(
    sizes: dict[str, int], data: dict | None = None, **changes
) -> tuple[TrainState, TrainState, dict]:
    """(host copies of the state before and after training, metrics) on a mesh."""
    data = data or batches()
    cfg = decoder_step(MODEL, adapter=ADAPTER, **changes)
    count = int(np.prod(list(sizes.values())))
    mesh = make_mesh(sizes, jax.devices()[:count])
    state = begun(cfg, mesh)
    before = jax.device_get(state)
    with activation_rules(mesh):
        state, metrics = train_chunk(cfg, state, data, jnp.int32(STEPS))
        sums = eval_sums(cfg, state.params, state.frozen, batches())
    found = jax.device_get(metrics) | {"eval": np.asarray(sums["nats"])}
    return before, jax.device_get(state), found


@pytest.fixture(scope="module")
def alone():
    return trained_on({"data": 1, "fsdp": 1})


@pytest.mark.slow
def test_the_base_keeps_its_bits_and_every_adapter_moves(alone):
    before, after, metrics = alone
    equal = lambda a, b: np.array_equal(np.asarray(a), np.asarray(b))  # noqa: E731
    assert all(jax.tree.leaves(jax.tree.map(equal, before.frozen, after.frozen)))
    assert not any(jax.tree.leaves(jax.tree.map(equal, before.params, after.params)))
    # The optimiser has two moments for each trained number, and nothing for the base.
    trained = sum(leaf.size for leaf in jax.tree.leaves(after.params))
    moments = sum(leaf.size for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim)
    assert moments == 2 * trained < sum(leaf.size for leaf in jax.tree.leaves(after.frozen)) / 4
    assert metrics["loss"][1] != metrics["loss"][0]


def test_micro_batches_of_unequal_weight_equal_one_batch(alone):
    """By Adam's moments, which are sums of gradients and their squares. The parameters would do
    for most of them, but the first update of a gradient near 0 magnifies its rounding."""
    _, parts, _ = trained_on({"data": 1, "fsdp": 1}, accumulation=4)
    assert apart(parts.opt_state, alone[1].opt_state) < 1e-6
    equal = {"weights": np.ones((STEPS, 8, 8), np.float32)}  # control: every token counts as much
    _, other, _ = trained_on({"data": 1, "fsdp": 1}, batches() | equal)
    assert apart(other.opt_state, alone[1].opt_state) > 0.1


def apart(tree: Any, other: Any) -> float:
    """The largest distance of two trees, as a share of the largest value of the second."""
    largest = lambda tree: max(float(np.abs(x).max()) for x in jax.tree.leaves(tree) if np.ndim(x))  # noqa: E731
    return largest(jax.tree.map(np.subtract, tree, other)) / largest(other)


@pytest.mark.slow
def test_eight_devices_equal_one():
    """FSDP and tensor parallelism of the adapters and of the packed base."""
    command = [sys.executable, "-m", "tests.train.test_adapters"]
    environment = os.environ | {"XLA_FLAGS": EIGHT, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == 8 and found["sharded"] > 0.5
    assert found["difference"] < 1e-5 < found["control"]


@pytest.mark.parametrize("base_dtype", ["", pytest.param("nf4", marks=pytest.mark.slow)])
def test_the_reference_of_dpo_is_the_base_without_its_adapters(base_dtype):
    """The first loss is log 2, and no second copy of the model is held."""
    adapter = dataclasses.replace(ADAPTER, base_dtype=base_dtype)
    cfg = dataclasses.replace(
        decoder_step(MODEL, dpo.Loss(), adapter=adapter),
        objective="dpo",
        frozen=(("reference", "decoder", MODEL),),
        from_base=("reference",),
    )
    params = jax.tree.map(np.asarray, decoder.init(MODEL, jax.random.key(0)))
    trained, base = cfg.trained.split(MODEL, params, 1)
    rng = np.random.default_rng(0)
    batch = {name: rng.integers(0, 32, (4, 8)) for name in ("chosen", "rejected")}
    batch |= {f"{name}_weights": np.eye(8, dtype=np.float32)[2:6] for name in batch}
    batch |= {"margin": np.zeros(4, np.float32)}

    @jax.jit
    def loss(trained):
        sums = loss_sums(trained, {BASE: base}, cfg, batch, jax.random.key(0))[1]["loss"]
        return sums[0] / sums[1]

    assert float(loss(trained)) == pytest.approx(np.log(2), abs=1e-6)
    moved = jax.tree.map(lambda x: x + 0.1, trained)
    assert abs(float(loss(moved)) - np.log(2)) > 1e-4


def test_the_memory_of_a_packed_base_is_its_codes_and_scales():
    """By hand: half a byte for each weight of a block, a byte for 64 of them, four bytes for 256 of
    those and four for a matrix; the rest in four bytes a number."""
    cfg = decoder_step(MODEL, adapter=dataclasses.replace(ADAPTER, dora=False))
    state = begun(cfg, make_mesh({"fsdp": 1}, jax.devices()[:1]))
    found, d = memory.by_component(state), 256
    packed = lambda i, o: i * o // 2 + i * o // 64 + 4 * math.ceil(i * o / 64 / 256) + 4  # noqa: E731
    others = 4 * (MODEL.vocab_size * d + 3 * d + 7 * d)  # the tied embedding, norms and biases
    assert MODEL.d_ff == MODEL.n_heads * MODEL.head_dim == d
    assert found["frozen base"] == 7 * packed(d, d) + others
    assert found["parameters"] == found["gradients"] == 7 * 2 * 2 * d * 4
    assert found["optimizer"] == pytest.approx(2 * found["parameters"], abs=16)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state.frozen))  # what is there
    assert found["frozen base"] == held
    plain = decoder_step(MODEL, adapter=Adapter("lora", rank=2))  # control
    whole = begun(plain, make_mesh({"fsdp": 1}, jax.devices()[:1]))
    assert memory.by_component(whole)["frozen base"] == 4 * 7 * d * d + others


def test_moments_of_adapters_follow_their_sharding_rules():
    cfg = decoder_step(MODEL, adapter=dataclasses.replace(ADAPTER, base_dtype="int8"))
    mesh = jax.sharding.AbstractMesh((2, 2), ("fsdp", "tensor"))
    trained, base = cfg.trained.split_shapes(MODEL)
    specs = parameter_specs(trained, cfg.axes, mesh)["blocks"]["mlp"]["up"]
    assert specs["lora_a"] == jax.P(None, ("fsdp",), None)
    assert specs["lora_b"] == jax.P(None, None, ("tensor",))
    codes = parameter_specs(base, cfg.axes, mesh)["blocks"]["mlp"]["up"]["kernel"].codes
    assert codes == jax.P(None, ("fsdp",), ("tensor",))


def main() -> None:
    _, one, metrics = trained_on({"data": 1, "fsdp": 1})
    sizes = {"data": 1, "fsdp": 4, "tensor": 2}
    _, many, sharded = trained_on(sizes)

    def values(state, metrics):
        return jax.tree.leaves((state.params, metrics["loss"], metrics["eval"]))

    pairs = zip(values(one, metrics), values(many, sharded), strict=True)
    start = begun(decoder_step(MODEL, adapter=ADAPTER), make_mesh({"fsdp": 1}, jax.devices()[:1]))
    moved = zip(jax.tree.leaves(start.params), jax.tree.leaves(many.params), strict=True)
    spread = begun(decoder_step(MODEL, adapter=ADAPTER), make_mesh(sizes, jax.devices()))
    leaves = jax.tree.leaves((spread.params, spread.frozen))
    split = sum(leaf.size for leaf in leaves if not leaf.sharding.is_fully_replicated)
    report = {
        "devices": len(jax.devices()),
        "sharded": split / sum(leaf.size for leaf in leaves),
        "difference": max(float(np.abs(a - b).max()) for a, b in pairs),
        "control": max(float(np.abs(np.asarray(a) - b).max()) for a, b in moved),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
