"""Tests of a run that resumes on other processes and devices, again and again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import spawn
from tests.launch.trial.test_distributed import TINY, end, free_port, here, losses

pytestmark = pytest.mark.slow
# (processes, devices of each, keys of the mesh): all have at most eight devices.
STAGES = (
    (1, 4, {"mesh.data": 1, "mesh.fsdp": 4}),
    (2, 2, {"mesh.data": 2, "mesh.fsdp": 2}),
    (4, 1, {"mesh.data": 4, "mesh.fsdp": 1}),
    (1, 8, {"mesh.data": 2, "mesh.fsdp": 4}),
)
# `isoflop` that writes the steps of the data that it reads to the file that is its first argument.
READS = """
import sys
from train.parallel import processes
from launch.trial import distributed
name, run = sys.argv.pop(1), distributed._one_process
def patched(*given):
    import train.loop as loop
    read = loop.read_steps
    def reading(config, dataset, step, count, rows=None):
        if processes.is_first():
            with open(name, "a") as file:
                print(step, step + count, file=file)
        return read(config, dataset, step, count, rows)
    loop.read_steps = reading
    return run(*given) if given else None
distributed._one_process = patched
if "--processes=1" in sys.argv:
    patched()
from launch.__main__ import entry
entry()
"""


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def stage(home: Path, number: int, stop_at: str) -> list[list[int]]:
    """Trains a stage in the folder "chain". Returns the ranges of the data that it read."""
    count, devices, mesh = STAGES[number]
    keys = TINY | {"checkpoint.stop_at": stop_at} | mesh
    where = [f"--processes={count}"]
    where += [f"--coordinator=127.0.0.1:{free_port()}"] if count > 1 else []
    flags = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
    reads = home / f"reads-{number}"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", READS, str(reads), *spawn.arguments(home, "chain", keys)]
            + where
            + ([f"--process={i}"] if count > 1 else []),
            cwd=spawn.ROOT,
            env=os.environ | {"PYTHONPATH": str(spawn.ROOT), "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]
    codes, outputs = end(*started)
    assert set(codes) == {0}, outputs
    return [[int(word) for word in line.split()] for line in reads.read_text().splitlines()]


def test_resumed_on_four_meshes_it_has_the_data_and_losses_of_one_device(home):
    """1×4, then 2×2, then 4×1, then 1×8: the same steps of the data, losses to 1e-5."""
    assert here(home, "alone") == 0
    read = []
    for number, stop_at in enumerate(("24 steps", "48 steps", "72 steps", "")):
        ranges = stage(home, number, stop_at)
        assert ranges[0][0] == 24 * number
        read += [step for first, last in ranges for step in range(first, last)]
    assert read == list(range(96))
    kept = lambda rows: rows[np.isin(rows[:, 0], losses(home, "alone")[:, 0])]  # noqa: E731
    chain = {tuple(row) for row in kept(losses(home, "chain")).tolist()}
    of_steps = {}
    for step, loss in sorted(chain):
        of_steps.setdefault(step, []).append(loss)
    for step, loss in losses(home, "alone"):
        assert min(abs(other / loss - 1) for other in of_steps[step]) < 1e-5, step
    result = json.loads((home / "chain/result.json").read_text())
    alone = json.loads((home / "alone/result.json").read_text())
    assert result["eval_loss"] == pytest.approx(alone["eval_loss"], rel=1e-5)
    assert result["devices"] == 8 and result["dataset"] == alone["dataset"]


def test_control_another_seed_has_other_losses(home):
    keys = TINY | {"seed": 1}
    codes, _ = end(spawn.train(home, "other", keys))
    assert codes == [0]
    apart = np.abs(losses(home, "other")[:, 1] / losses(home, "alone")[:, 1] - 1).max()
    assert apart > 1e-4
