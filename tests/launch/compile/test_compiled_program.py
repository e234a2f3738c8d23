"""Tests of the compiled TPU program: communication, its data types, and loop counts."""

import jax
import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.config import config_file
from launch.errors import DONE
from launch.trial.resolve import resolve_sizes
from tests.launch.compile.test_compile import CONFIG, SMALL, needs_libtpu, overrides
from train.ahead_of_time import compiled, costs, hlo, topology, walk
from train.parallel import sharding


def layered(layers: int, scan: bool) -> costs.Costs:
    """Costs of FSDP on four chips: every layer gathers its weights and scatters its gradients."""
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.asarray(topology.devices(topology.parse("v5e:2x2"))), ("fsdp",))
    whole, rows = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("fsdp",)))
    stack = NamedSharding(mesh, PartitionSpec(None, "fsdp"))

    def layer(x, w):
        w = jax.lax.with_sharding_constraint(w.astype(jnp.bfloat16), whole)
        return jnp.tanh(x @ w), None

    def loss(w, x):
        if scan:
            return jax.lax.scan(layer, x, w)[0].astype(jnp.float32).mean()
        for i in range(layers):
            x, _ = layer(x, w[i])
        return x.astype(jnp.float32).mean()

    w = jax.ShapeDtypeStruct((layers, 256, 256), jnp.float32, sharding=stack)
    x = jax.ShapeDtypeStruct((512, 256), jnp.bfloat16, sharding=rows)
    step = jax.jit(jax.grad(loss, (0, 1)), out_shardings=(stack, rows))
    return costs.measure(step.lower(w, x).compile().as_text())


def training_program(changes: dict) -> compiled.Program:
    """The tiny config with these changes, compiled for four chips."""
    there = topology.parse("v5e:2x2")
    config = config_file.load_config(
        "configs/pretrain.py:tiny", {"model.dtype": "bfloat16"} | changes
    )
    resolved = resolve_sizes(config, there.devices)
    mesh = sharding.make_mesh(dict(resolved.mesh), topology.devices(there))
    return compiled.compile_chunk(resolved, mesh)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "short"), [("bfloat16", "bf16"), ("float32", "f32")])
def test_kernels_travel_in_the_type_of_the_computation(tmp_path, dtype, short):
    """Kernels are cast before the all-gather, and their gradients before the reduce-scatter."""
    file = tmp_path / "hlo.txt"
    changes = SMALL | {"model.dtype": dtype}
    arguments = (CONFIG, "--topology=v5e:2x2", f"--hlo={file}", *overrides(changes))
    assert isoflop(["compile", *arguments]) == DONE
    found = {"all-gather": set(), "reduce-scatter": set()}
    for visit in walk.walk(hlo.parse(file.read_text())):
        kind = visit.instruction.opcode.removesuffix("-start")
        if kind in found:
            found[kind] |= set(visit.computation.operands(visit.instruction))
    gathered, scattered = ({array.dtype for array in arrays} for arrays in found.values())
    assert scattered == {short}
    # The compiler rounds a float32 head before the all-gather, because its products are bfloat16.
    assert gathered in ({short}, {short, "bf16"})
    # The gradient of the tied head; no other array here has the shape 128 x 256.
    assert hlo.Array(short, (128, 256)) in found["reduce-scatter"]


@needs_libtpu
def test_a_scan_on_tpus_costs_its_layers_times_the_difference_of_unrolled_programs():
    one, two, scanned = layered(1, False), layered(2, False), layered(6, True)
    assert not scanned.loops  # no loop has an unknown trip count
    assert scanned.products == one.products + 5 * (two.products - one.products)
    for kind in ("all-gather", "reduce-scatter"):
        assert scanned.wire[kind] == 6 * (two.wire[kind] - one.wire[kind]) > 0


@pytest.mark.slow
@needs_libtpu
def test_along_tensor_layers_keep_their_part_of_the_residual_stream_alone(monkeypatch):
    layers, rows, tokens, width = 24, 128, 256, 256
    changes = {"model.n_layers": layers, "model.d_model": width, "model.n_heads": 8}
    changes |= {"model.context_length": tokens, "train.batch_size": rows, "mesh.tensor": 4}
    changes |= {"model.scan_layers": True, "model.remat": "full"}
    spread = training_program(changes).peak
    monkeypatch.setitem(sharding.MESH_AXES, "activation", ())
    jax.clear_caches()  # so that it is traced again with the other rules
    whole = training_program(changes).peak
    jax.clear_caches()
    kept = layers * rows * tokens * width * 2  # bytes
    assert whole - spread > 0.7 * kept  # three quarters, minus other live buffers


@pytest.mark.slow
@needs_libtpu
def test_two_recipes_agree_on_the_real_program():
    """Compares our walk of the program with the compiler's count, extrapolated from 1 and 2 layers.

    The compiler also counts elementwise work: 1.6 % at this width.
    """
    walked, counted = {}, {}
    for layers in (1, 2, 3):
        changes = {"model.n_layers": layers, "model.d_model": 512, "model.n_heads": 4}
        changes |= {"model.vocab_size": 512, "train.batch_size": 4, "model.context_length": 512}
        program = training_program(changes | {"model.positions": "rotary"})
        found = costs.measure(program.text)
        walked[layers] = found.matmul
        counted[layers] = program.counted + sum(found.kernels.values())
    assert walked[3] - walked[2] == walked[2] - walked[1]
    extrapolated = counted[1] + 2 * (counted[2] - counted[1])
    assert extrapolated == pytest.approx(counted[3], rel=1e-3)
    assert walked[3] == pytest.approx(extrapolated, rel=0.02)
    assert walked[2] != pytest.approx(extrapolated, rel=0.02)  # control: one layer fewer
