"""Tests the staged sums of gradients over devices, which leave each device with its part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from model import partitioning
from train.ahead_of_time import costs, topology

needs_libtpu = pytest.mark.skipif(not topology.installed(), reason="libtpu is not installed")


def scattered(x_NI: np.ndarray, stages: list[list[list[int]]]) -> list[np.ndarray]:
    """The parts that N devices with arrays [I] hold after the stages."""
    held = list(x_NI)
    for groups in stages:
        parts = {}
        for group in groups:
            total = np.split(sum(held[device] for device in group), len(group))
            parts |= dict(zip(group, total, strict=True))
        held = [parts[device] for device in range(len(held))]
    return held


@pytest.mark.parametrize("devices", [2, 3, 8, 12, 16, 256, 1024])
def test_after_all_stages_each_device_has_its_part_of_the_sum(devices):
    x_NI = np.random.default_rng(0).integers(0, 99, (devices, 2 * devices))
    stages = partitioning.stages(devices)
    assert max(len(groups[0]) for groups in stages) <= max(16, devices // 16) or devices < 4
    assert np.array_equal(np.concatenate(scattered(x_NI, stages)), x_NI.sum(0))


def test_control_in_the_other_order_the_parts_are_anothers():
    x_NI = np.arange(16 * 16).reshape(16, 16)
    wrong = scattered(x_NI, partitioning.stages(16)[::-1])
    assert not np.array_equal(np.concatenate(wrong), x_NI.sum(0))


def moved(stages, monkeypatch) -> dict[str, float]:
    """Bytes that `summed` sends on 16 chips, by collective, in the TPU compiler's program."""
    topology.prepare_environment()
    monkeypatch.setattr(partitioning, "stages", stages)
    mesh = Mesh(np.array(topology.devices(topology.parse("v5e:4x4"))), ("fsdp",))
    spec = PartitionSpec("fsdp")
    f = functools.partial(partitioning.summed, scattered=spec, axes=("fsdp",))
    whole = jax.ShapeDtypeStruct((1024, 1024), jnp.bfloat16)
    on_mesh = jax.shard_map(f, mesh=mesh, in_specs=PartitionSpec(), out_specs=spec, check_vma=False)
    with jax.set_mesh(mesh):
        return costs.measure(jax.jit(on_mesh).lower(whole).compile().as_text()).wire


@needs_libtpu
def test_on_tpus_no_device_is_sent_all_of_the_sum(monkeypatch):
    two, flat = partitioning.stages, lambda devices: [[list(range(devices))]]
    assert moved(two, monkeypatch)["all-reduce"] == 0
    assert moved(flat, monkeypatch)["reduce-scatter"] == 0  # control
