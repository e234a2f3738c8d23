"""This file tests sharding: the rule tables and their errors, and FSDP on 8 virtual devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from model.config import derive
from model.transformer import init
from train import sharding
from train.rules import lookup, path_name

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def eight() -> dict:
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("eight_devices.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("mesh", ["fsdp", "both"])
def test_sharded_losses_are_those_of_one_device(eight, mesh):
    np.testing.assert_allclose(eight[mesh]["losses"], eight["one"]["losses"], rtol=1e-5)


def test_control_another_seed_has_other_losses(eight):
    one, other = eight["one"]["losses"], eight["other seed"]["losses"]
    assert np.abs(np.subtract(one, other)).max() > 1e-3


def test_bytes_per_device_are_what_the_rules_say(eight):
    whole = eight["one"]["bytes"][0]
    small = 0.03  # of the bytes: scales and counters, which are replicated
    for mesh, parts in (("fsdp", 8), ("both", 4)):
        for held in eight[mesh]["bytes"]:
            assert whole / parts <= held <= whole * (1 / parts + small), mesh


def shapes(**changes) -> dict:
    keys = dict(
        vocab_size=256, context_length=16, n_layers=2, d_model=16, n_heads=4, n_kv_heads=0,
        head_dim=0, d_ff=0,
    )  # fmt: skip
    cfg = derive(dict(gated=False) | keys | changes)
    return jax.eval_shape(lambda: init(cfg, jax.random.key(0)))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gated": True, "norm": "rmsnorm", "positions": "rotary", "tie_embeddings": False},
        {"positions": "none", "attention_bias": False, "mlp_bias": False, "norm_bias": False},
    ],
)
def test_every_parameter_has_a_rule_of_its_rank(changes):
    mesh = sharding.make_mesh({"data": 1, "fsdp": -1}, jax.devices()[:1])
    specs = sharding.parameter_shardings(shapes(**changes), mesh)
    assert specs["embed"]["embedding"].spec == PartitionSpec(None, "fsdp")
    assert specs["blocks"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, None, "fsdp")


def fake_mesh(**sizes) -> jax.sharding.AbstractMesh:
    return jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))


def test_errors_name_what_is_wrong(monkeypatch):
    with pytest.raises(ValueError, match=r"'blocks/gadget' matches no rule of PARAMETER_RULES"):
        sharding.parameter_shardings({"blocks": {"gadget": np.ones(3)}}, fake_mesh(data=1, fsdp=1))
    with pytest.raises(ValueError, match=r"embed/embedding: .*'embed' = 12 .* mesh.fsdp=8"):
        sharding.spec("embed/embedding", (256, 12), ("vocab", "embed"), fake_mesh(data=1, fsdp=8))
    with pytest.raises(ValueError, match=r"names 2 axes .* shape is \(3,\)"):
        sharding.spec("x", (3,), ("vocab", "embed"), fake_mesh(data=1, fsdp=1))
    monkeypatch.setitem(sharding.MESH_AXES, "mlp", "fsdp")
    with pytest.raises(ValueError, match=r"'embed' and 'mlp' collide on mesh axis 'fsdp'"):
        sharding.spec("x", (8, 8), ("embed", "mlp"), fake_mesh(data=1, fsdp=8))


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"data": 1, "tensor": 1}, r"mesh.tensor=1: no entry of MESH_AXES uses this axis"),
        ({"data": -1, "fsdp": -1}, "only one axis can be -1"),
        ({"data": 3, "fsdp": 1}, "does not multiply to the 1 devices"),
        ({"data": 0, "fsdp": -1}, r"mesh.data=0 must be a positive number"),
    ],
)
def test_meshes_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(sizes, jax.devices()[:1])


def test_first_matching_rule_wins_and_paths_read_like_files():
    rules = ((r"a/b$", 1), (r"a", 2))
    assert lookup(rules, "a/b", "T") == 1 and lookup(rules, "a/c", "T") == 2
    leaves = jax.tree_util.tree_leaves_with_path({"a": {"b": 1}})
    assert path_name(leaves[0][0]) == "a/b"
