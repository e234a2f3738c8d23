"""Tests moments in the host's memory: the same bits, checkpoints, eight devices, refusals.

`python -m tests.train.optimizers.test_offload FOLDER` prints what the test of eight devices reads.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import get_config
from data.kinds import text
from model.transformer.config import ModelConfig
from tests.train.steps import decoder_step
from train.checkpoint import Checkpoints
from train.loop import initial_state
from train.optimizers import offload
from train.parallel import memory, sharding
from train.parallel.mesh import MeshError, make_mesh
from train.record import saved
from train.stacked import stackable
from train.step import StepConfig, TrainState, train_chunk

MODEL = ModelConfig(64, 16, 1, 32, 4, 2, 8, 64, positions="rotary", gated=True, norm="rmsnorm")
HYPER = dict(
    learning_rate=1e-2, warmup=1, decay=1, total=20, final=0.1, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
STEPS, LENGTH = 3, 16


def mesh_of(**sizes: int) -> jax.sharding.Mesh:
    devices = int(np.prod(list(sizes.values())))
    return make_mesh(sizes, jax.devices()[:devices])


def trained(cfg: StepConfig, mesh: jax.sharding.Mesh, state: TrainState | None = None) -> tuple:
    """(state, losses) after three steps from a state, or from the first one."""
    tokens = np.random.default_rng(0).integers(0, 64, (STEPS, 8, LENGTH + 1)).astype(np.int32)
    batch = {"tokens": tokens[..., :-1], "targets": tokens[..., 1:]}
    batch["weights"] = np.ones(batch["tokens"].shape, np.float32)
    with sharding.activation_rules(mesh):
        state = initial_state(cfg, HYPER, 0, mesh)[1]() if state is None else state
        where = sharding.batch_shardings(mesh, text.Dataset(None, length=LENGTH).spec())
        state, metrics = train_chunk(cfg, state, jax.device_put(batch, where), jnp.int32(STEPS))
    return state, np.asarray(metrics["loss"])


def same(one: TrainState, other: TrainState) -> bool:
    """Whether parameters and moments are equal to the bit."""
    pairs = zip(*(jax.tree.leaves(jax.device_get(saved(s))) for s in (one, other)), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)


def kinds(state: TrainState) -> tuple[set, set]:
    """The kinds of memory of the moments, and of everything else."""
    moments = {id(leaf) for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim}
    found = {True: set(), False: set()}
    for leaf in jax.tree.leaves(state):
        found[id(leaf) in moments].add(leaf.sharding.memory_kind)
    return found[True], found[False]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"moments": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "muon"}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "adafactor"}, marks=pytest.mark.slow),
    ],
)
def test_offloaded_moments_give_the_same_bits(settings):
    mesh = mesh_of(data=1, fsdp=1)
    plain, _ = trained(decoder_step(MODEL, **settings), mesh)
    state, _ = trained(decoder_step(MODEL, offload=True, **settings), mesh)
    assert same(state, plain)
    assert kinds(state) == ({offload.HOST}, {"device"})
    assert kinds(plain) == ({"device"}, {"device"})  # control
    on_host, on_device = (memory.by_component(one) for one in (state, plain))
    assert on_host["optimizer on the host"] + on_host["optimizer"] == on_device["optimizer"]
    assert on_host["optimizer"] < 100 and "optimizer on the host" not in on_device
    assert not same(trained(decoder_step(MODEL, **settings), mesh, plain)[0], state)  # control


def test_a_checkpoint_returns_the_moments_to_the_host(tmp_path):
    cfg, mesh = decoder_step(MODEL, offload=True), mesh_of(data=1, fsdp=1)
    state, _ = trained(cfg, mesh)
    saver = Checkpoints(tmp_path, 1, 0)
    saver.save(STEPS, saved(state), {})
    saver.close()
    like = initial_state(cfg, HYPER, 0, mesh)[0]
    tree, _ = Checkpoints(tmp_path, 1, 0).restore(saved(like))
    restored = TrainState(**tree, hyper=jax.tree.map(jnp.copy, state.hyper))
    assert same(restored, state) and kinds(restored) == ({offload.HOST}, {"device"})
    assert same(trained(cfg, mesh, restored)[0], trained(cfg, mesh, state)[0])


def test_a_platform_without_such_memory_is_refused_in_one_line(monkeypatch):
    device = SimpleNamespace(
        platform="abacus", addressable_memories=lambda: [SimpleNamespace(kind="beads")]
    )
    with pytest.raises(
        ValueError, match=r"optimizer\.offload=True needs memory of the kind .* beads"
    ):
        offload.require([device])
    offload.require(jax.devices())  # control
    monkeypatch.setattr(offload, "HOST", "none such")
    with pytest.raises(MeshError, match=r"use optimizer\.offload=False"):
        initial_state(decoder_step(MODEL, offload=True), HYPER, 0, mesh_of(fsdp=1))


def test_such_trials_are_never_stacked():
    config = get_config()
    assert not stackable.trains_alone(config)  # control
    config.optimizer.offload = True
    assert stackable.trains_alone(config)


@pytest.mark.slow
def test_eight_devices_equal_one(tmp_path):
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, "-m", "tests.train.optimizers.test_offload", str(tmp_path)]
    done = subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags}, cwd=Path(__file__).parents[3],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(found["eight"], found["one"], atol=1e-5)
    assert found["restored"] == found["further"]
    assert np.abs(np.subtract(found["further"], found["one"])).max() > 1e-3  # control
    assert found["kinds"] == [[offload.HOST], ["device"]] and found["spread"] > 0.9


def main(folder: str) -> None:
    cfg, mesh = decoder_step(MODEL, offload=True), mesh_of(data=2, fsdp=4)
    _, one = trained(cfg, mesh_of(data=1, fsdp=1))
    state, eight = trained(cfg, mesh)
    saver = Checkpoints(folder, 1, 0)
    saver.save(STEPS, saved(state), {})
    saver.close()
    tree, _ = Checkpoints(folder, 1, 0).restore(saved(initial_state(cfg, HYPER, 0, mesh)[0]))
    moments = [leaf for leaf in jax.tree.leaves(tree["opt_state"]) if leaf.ndim]
    spread = sum(leaf.size for leaf in moments if not leaf.sharding.is_fully_replicated)
    _, restored = trained(cfg, mesh, TrainState(**tree, hyper=jax.tree.map(jnp.copy, state.hyper)))
    found = [sorted(kind) for kind in kinds(state)]
    state, further = trained(cfg, mesh, state)
    report = {"one": one, "eight": eight, "restored": restored, "further": further}
    report = {name: losses.tolist() for name, losses in report.items()}
    report |= {"kinds": found, "spread": spread / sum(leaf.size for leaf in moments)}
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
