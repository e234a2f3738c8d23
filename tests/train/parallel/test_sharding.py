"""Tests sharding: rule tables and their errors, and training on 8 virtual devices."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from data.fields import Field
from model.transformer import family
from model.transformer.config import ModelConfig, derive
from model.transformer.decoder import init
from model.transformer.family import PARAMETER_AXES
from tests.train.steps import decoder_step
from train.parallel import sharding
from train.parallel.mesh import MESH_AXES, ORDER, make_mesh, mesh_sizes, row_parts
from train.rules import lookup, path_name
from train.step import init_state

ROOT = Path(__file__).resolve().parents[3]


# Meshes of eight_devices.py, and the number of parts into which they split the state.
QUICK = {"data fsdp": 4, "tensor sequence": 8}  # together they use every axis
SLOW = {
    "fsdp": 8, "data": 1, "tensor": 4, "sequence": 8, "data fsdp 4x2": 2, "data tensor": 2,
    "data sequence": 4, "fsdp tensor": 8, "fsdp sequence": 8,
}  # fmt: skip
MESHES = [*QUICK, *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW]]
# The mesh that saves a checkpoint > the mesh that restores it.
RESTORED = ["data fsdp>tensor sequence"]
RESTORED_SLOWLY = ["data fsdp>one", "fsdp>one", "fsdp>data fsdp", "fsdp>data fsdp 4x2"]


class Eight:
    """Results of eight_devices.py, run once for all quick tests and once for all slow ones."""

    def __init__(self):
        self._found = {}

    def __getitem__(self, name: str) -> dict:
        if name not in self._found:
            self._found |= run(QUICK_RUN if name in ("one", *QUICK_RUN) else SLOW_RUN)
        return self._found[name]


QUICK_RUN = ["other seed", *QUICK, *[f"restore:{pair}" for pair in RESTORED], "made:fsdp"]
QUICK_RUN += ["ring:tensor sequence", "refused:sequence", "kept:fsdp"]
SLOW_RUN = ["data fsdp", *SLOW, *[f"restore:{pair}" for pair in RESTORED_SLOWLY]]
SLOW_RUN += [
    "at_once:data fsdp",
    "splash:tensor sequence",
    "splash:data tensor",
    "splash:data sequence",
    "ring:data sequence",
]
SLOW_RUN += ["at_once:fsdp tensor", "at_once:fsdp sequence"]
SLOW_RUN += ["splash:sequence of three", "long:tensor sequence", "long:fsdp sequence"]


def run(names: list[str]) -> dict:
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("eight_devices.py"), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def eight() -> Eight:
    return Eight()


@pytest.mark.parametrize("mesh", MESHES)
def test_sharded_losses_and_gradients_are_those_of_one_device(eight, mesh):
    np.testing.assert_allclose(eight[mesh]["losses"], eight["one"]["losses"], rtol=1e-5)
    assert eight[mesh]["gradient"] < 1e-5


def test_control_another_seed_has_other_losses_and_gradients(eight):
    one, other = eight["one"]["losses"], eight["other seed"]["losses"]
    assert np.abs(np.subtract(one, other)).max() > 1e-3
    assert eight["other seed"]["gradient"] > 0.1


@pytest.mark.parametrize("mesh", MESHES)
def test_bytes_per_device_are_what_the_rules_say(eight, mesh):
    whole, parts = eight["one"]["bytes"][0], (QUICK | SLOW)[mesh]
    small = 0.03  # share of the bytes in scales and counters, which are replicated
    for held in eight[mesh]["bytes"]:
        assert whole / parts <= held <= whole * (1 / parts + small)


@pytest.mark.parametrize(
    "pair", [*RESTORED, *[pytest.param(pair, marks=pytest.mark.slow) for pair in RESTORED_SLOWLY]]
)
def test_a_checkpoint_of_eight_devices_trains_on_on_another_mesh(eight, pair):
    expected = eight["one"]["losses"][5:]
    np.testing.assert_allclose(eight[f"restore:{pair}"]["losses"], expected, rtol=1e-5)
    earlier = np.subtract(eight["one"]["losses"][:5], expected)
    assert np.abs(earlier).max() > 1e-3  # control: other steps have other losses


@pytest.mark.parametrize(
    "name",
    [
        "ring:tensor sequence",
        pytest.param("splash:tensor sequence", marks=pytest.mark.slow),
        pytest.param("ring:data sequence", marks=pytest.mark.slow),
        pytest.param("splash:data sequence", marks=pytest.mark.slow),
        pytest.param("splash:sequence of three", marks=pytest.mark.slow),
        pytest.param("splash:data tensor", marks=pytest.mark.slow),
    ],
)
def test_attention_on_a_mesh_is_that_of_one_device(eight, name):
    for found in eight[name]:
        assert found["distance"] < 1e-5 and found["control"] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["tensor sequence", "fsdp sequence"])
def test_gradients_of_packed_rows_spread_over_devices_are_those_of_one(eight, mesh):
    found = eight[f"long:{mesh}"]
    assert found["distance"] < 1e-5 and found["control"] > 1e-3


def test_a_product_keeps_its_part_of_a_kernel_alone(eight):
    assert eight["kept:fsdp"]["kept"] * 8 == eight["kept:fsdp"]["whole"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("data fsdp", marks=pytest.mark.slow),
        pytest.param("fsdp tensor", marks=pytest.mark.slow),
        pytest.param("fsdp sequence", marks=pytest.mark.slow),
    ],
)
def test_heads_tied_and_free_are_those_of_one_device_without_chunks_of_the_loss(eight, name):
    for found in eight[f"at_once:{name}"]:
        assert found["distance"] < 1e-5 and found["control"] > 0.1


def test_no_device_ever_holds_the_whole_initial_state(eight):
    found = eight["made:fsdp"]
    assert found["peak"] < 0.2 * found["whole"] <= 0.2 * found["control"]


def test_a_run_whose_context_the_mesh_does_not_divide_is_refused(eight):
    assert eight["refused:sequence"] == (
        "model.context_length=12 is not divisible by mesh.sequence=8; "
        "use model.context_length=8 or 16, or mesh.sequence=4"
    )


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
    mesh = make_mesh({"data": 1, "fsdp": -1, "tensor": 1, "sequence": 1}, jax.devices()[:1])
    found = sharding.parameter_shardings(shapes(**changes), PARAMETER_AXES, mesh)
    split = ("fsdp", "sequence")
    assert found["embed"]["embedding"].spec == PartitionSpec("tensor", split)
    assert found["blocks"]["mlp"]["down"]["kernel"].spec == PartitionSpec(None, "tensor", split)


def fake_mesh(**sizes) -> jax.sharding.AbstractMesh:
    return jax.sharding.AbstractMesh(tuple(sizes.values()), tuple(sizes))


def test_each_field_of_a_batch_lies_along_its_own_axes():
    fields = {
        "tokens": Field((16,), np.int32, ("seq",)),
        "image": Field((8, 8, 3), np.float32, (None, None, None)),
        "label": Field((), np.int32, ()),
    }
    mesh, rows = fake_mesh(data=2, fsdp=2, sequence=2), ("data", "fsdp")
    found = {k: s.spec for k, s in sharding.batch_shardings(mesh, fields).items()}
    assert found == {
        "tokens": PartitionSpec(None, rows, "sequence"),
        "image": PartitionSpec(None, rows, None, None, None),
        "label": PartitionSpec(None, rows),
    }
    without_steps = sharding.batch_shardings(mesh, fields, leading=0)
    assert without_steps["label"].spec == PartitionSpec(rows)


def test_moments_lie_as_their_parameter_and_frozen_parameters_by_their_own_rules():
    hyper = dict.fromkeys(("b1", "b2", "eps", "weight_decay"), np.float32(0.1))
    cfg = decoder_step(ModelConfig(64, 16, 1, 32, 4, 4, 8, 64))
    frozen = {"teacher": {"table": np.ones((8, 6), np.float32)}}
    state = jax.eval_shape(lambda: init_state(cfg, hyper, np.uint32(0), None, frozen))
    rules, mesh = {"teacher": ((r"^table$", ("vocab", "vector")),)}, fake_mesh(fsdp=4, tensor=2)
    found = sharding.state_shardings(state, cfg.axes, rules, mesh)
    assert found.frozen["teacher"]["table"].spec == PartitionSpec("tensor", None)
    moments = [
        (path_name(path), of.spec)
        for path, of in jax.tree_util.tree_leaves_with_path(found.opt_state)
        if path_name(path).endswith("mlp/up/kernel")
    ]
    up = found.params["blocks"]["mlp"]["up"]["kernel"].spec
    assert len(moments) == 2 and {of for _, of in moments} == {up} != {PartitionSpec()}
    with pytest.raises(ValueError, match=r"'table' matches no rule of PARAMETER_AXES"):
        sharding.state_shardings(state, cfg.axes, {"teacher": cfg.axes}, mesh)


def test_errors_name_what_is_wrong(monkeypatch):
    with pytest.raises(ValueError, match=r"'blocks/gadget' matches no rule of PARAMETER_AXES"):
        strange = {"blocks": {"gadget": np.ones(3)}}
        sharding.parameter_shardings(strange, PARAMETER_AXES, fake_mesh(data=1, fsdp=1))
    with pytest.raises(ValueError, match=r"embed/embedding: .*'embed' = 12 .* mesh.fsdp=8"):
        sharding.spec("embed/embedding", (256, 12), ("vocab", "embed"), fake_mesh(data=1, fsdp=8))
    with pytest.raises(ValueError, match=r"names 2 axes .* shape is \(3,\)"):
        sharding.spec("x", (3,), ("vocab", "embed"), fake_mesh(data=1, fsdp=1))
    with pytest.raises(
        ValueError, match=r"'embed' = 20 .* mesh.fsdp=2 × mesh.sequence=4; use 16 or 24"
    ):
        sharding.spec("x", (20,), ("embed",), fake_mesh(fsdp=2, sequence=4))
    monkeypatch.setitem(sharding.MESH_AXES, "mlp", ("fsdp",))
    with pytest.raises(ValueError, match=r"'embed' and 'mlp' collide on mesh axis 'fsdp'"):
        sharding.spec("x", (8, 8), ("embed", "mlp"), fake_mesh(data=1, fsdp=8))


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"data": 1, "expert": 1}, r"mesh.expert=1: no entry of MESH_AXES uses this axis"),
        ({"data": -1, "fsdp": -1}, "only one axis can be -1"),
        ({"data": 0, "fsdp": -1}, r"mesh.data=0 must be a positive number"),
        ({"data": 2, "fsdp": 3}, r"to the 8 devices; use mesh.fsdp=4, or -1"),
        ({"data": 3, "tensor": -1}, r"without mesh.tensor the product is 3; it should be 2 or 4"),
        ({"data": 9, "fsdp": 1}, r"without mesh.fsdp the product is 9; it should be 8"),
    ],
)
def test_meshes_that_cannot_be(sizes, message):
    with pytest.raises(sharding.MeshError, match=message):
        mesh_sizes(sizes, 8)


def test_models_that_a_mesh_cannot_divide_are_refused_with_what_it_can():
    cfg = ModelConfig(64, 20, 1, 24, 6, 3, 4, 64)
    for sizes, message in (
        (
            {"tensor": 4},
            r"model.n_heads=6 .* mesh.tensor=4; use model.n_heads=4 or 8, or mesh.tensor=2",
        ),
        ({"tensor": 2}, r"model.n_kv_heads=3 neither divides mesh.tensor=2 .* use mesh.tensor=1"),
        ({"sequence": 8}, r"model.context_length=20 .* use model.context_length=16 or 24, or .*=4"),
    ):
        with pytest.raises(ValueError, match=message):
            sharding.require(family, cfg, fake_mesh(**sizes))
    sharding.require(family, cfg, fake_mesh(tensor=6, sequence=4))  # control; keys are repeated
    narrow = replace(cfg, d_model=20)
    with pytest.raises(
        sharding.MeshError, match=r"d_model=20 .* use model.d_model=18 or 24, or .*=2"
    ):
        sharding.require(family, narrow, fake_mesh(tensor=6))
    splash = replace(cfg, attention="splash")
    with pytest.raises(
        sharding.MeshError, match=r"'splash' cannot run: 20 tokens are not a multiple of 128"
    ):
        sharding.require(family, splash, fake_mesh(tensor=1))


@dataclass(frozen=True)
class FakeDevice:
    """A fake device in one of several 2 × 2 slices."""

    id: int
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0

    @property
    def slice_index(self) -> int:
        return self.id // 4

    @property
    def coords(self) -> tuple[int, int, int]:
        return self.id % 2, self.id // 2 % 2, 0

    @property
    def process_index(self) -> int:
        return self.slice_index


def test_only_data_spans_slices():
    devices = [FakeDevice(n) for n in (0, 4, 1, 5, 2, 6, 3, 7)]
    with pytest.raises(ValueError, match=r"mesh.data=1 .* 2 slices .* use mesh.data=2"):
        make_mesh({"data": 1, "fsdp": -1}, devices)
    for sizes in ({"data": 2, "fsdp": 4}, {"data": 4, "fsdp": 2}, {"fsdp": 4, "data": -1}):
        mesh = make_mesh(sizes, devices)
        halves = np.split(mesh.devices, 2, axis=list(mesh.shape).index("data"))
        assert [{d.slice_index for d in half.ravel()} for half in halves] == [{0}, {1}]


@pytest.mark.parametrize(
    "sizes, parts",
    [
        (dict(data=2, fsdp=-1, tensor=1, sequence=1), 8),
        (dict(data=1, fsdp=-1, tensor=2, sequence=2), 2),
        (dict(data=2, fsdp=1, tensor=-1, sequence=1), 2),
        (dict(data=3, fsdp=1, tensor=2, sequence=1), 8),  # not a valid mesh; other code refuses it
    ],
)
def test_devices_of_tensor_and_sequence_share_their_rows(sizes, parts):
    assert row_parts(sizes, 8) == parts


def test_the_axes_of_a_mesh_are_ordered_and_every_one_is_used():
    assert list(mesh_sizes({"tensor": 1, "fsdp": -1, "data": 2}, 8)) == ["data", "fsdp", "tensor"]
    assert set(ORDER) == {axis for axes in MESH_AXES.values() for axis in axes}


def test_first_matching_rule_wins_and_paths_read_like_files():
    rules = ((r"a/b$", 1), (r"a", 2))
    assert lookup(rules, "a/b", "T") == 1 and lookup(rules, "a/c", "T") == 2
    leaves = jax.tree_util.tree_leaves_with_path({"a": {"b": 1}})
    assert path_name(leaves[0][0]) == "a/b"
