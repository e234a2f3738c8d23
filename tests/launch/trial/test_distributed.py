"""Tests of multi-process runs: they match one process, end together and fail together.

They start real processes on this machine, each with virtual CPU devices.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.trial import distributed
from tests import spawn
from train import metrics
from train.checkpoint import finished

ROOT = Path(__file__).resolve().parents[3]
TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "train.batch_size": 8, "train.duration": "96 steps", "train.chunk": 8, "eval.sequences": 12,
    "eval.batch_size": 8, "eval.every": "48 steps", "checkpoint.every": "32 steps",
    "log.every": "8 steps", "log.tensorboard": "false",
}  # fmt: skip
LONG = {"train.duration": "8000 steps", "schedule.name": "constant"}


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    """The folder of this module's runs, which share its caches."""
    return text_folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(home: Path, name: str, devices: int, flags=(), **overrides) -> subprocess.Popen:
    """Starts one process of a run in the folder `name`, with `devices` virtual devices."""
    # Compiling without optimisation takes half the time.
    virtual = f"--xla_backend_optimization_level=0 --xla_force_host_platform_device_count={devices}"
    return spawn.train(home, name, TINY | overrides, *flags, xla_flags=virtual)


def start_all(home: Path, name: str, count: int = 2, **overrides) -> list[subprocess.Popen]:
    """Starts `count` processes with two devices each."""
    where = f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}"
    return [start(home, name, 2, (*where, f"--process={i}"), **overrides) for i in range(count)]


def end(*processes: subprocess.Popen) -> tuple[list[int], list[str]]:
    """Waits for the processes; returns their exit codes and outputs."""
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def wait_for_step(home: Path, name: str, step: int) -> None:
    latest = time.monotonic() + 120
    while not any(row["step"] >= step for row in metrics.read(home / name / "metrics.jsonl")):
        assert time.monotonic() < latest
        time.sleep(0.02)


def stop_half_way(home: Path, name: str, several: bool, devices: int, asked: int) -> None:
    """Sends SIGTERM to process `asked`; all must exit with 42 and save a step before the last."""
    processes = start_all(home, name) if several else [start(home, name, devices)]
    wait_for_step(home, name, 8)
    processes[asked].send_signal(signal.SIGTERM)
    codes, outputs = end(*processes)
    assert set(codes) == {42}, outputs
    saved = int(finished(home / name / "checkpoints")[0].name)
    assert saved % 8 == 0 and 8 <= saved < 96
    assert not (home / name / "result.json").exists()


def losses(home: Path, name: str) -> np.ndarray:
    rows = metrics.read(home / name / "metrics.jsonl")
    return np.array([[row["step"], row.get("loss", row.get("eval_loss"))] for row in rows])


def assert_same(home: Path, one: str, other: str) -> None:
    np.testing.assert_allclose(losses(home, one), losses(home, other), rtol=1e-5)
    assert len(losses(home, one)) == 14


def here(home: Path, name: str) -> int:
    """Trains in this process, which has one device; returns the exit code."""
    keys = TINY | {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"}
    overrides = [f"--config.{key}={value}" for key, value in keys.items()]
    return isoflop(["train", "--config=configs/base.py", f"--workdir={home}/{name}", *overrides])


@pytest.fixture(scope="module")
def alone(home) -> str:
    """The reference run: one process with one device."""
    assert here(home, "alone") == 0
    return "alone"


def test_one_is_asked_to_stop_and_all_save_the_same_step(home, alone, capsys):
    """One process with one device then resumes and ends with the same numbers."""
    stop_half_way(home, "asked", several=True, devices=2, asked=1)
    assert here(home, "asked") == 0 and "resuming at step" in capsys.readouterr().out
    assert_same(home, "asked", alone)


@pytest.mark.slow
def test_processes_that_do_not_meet_are_one_line(home):
    flags = f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", "--wait=2"
    codes, outputs = end(start(home, "unmet", 2, (*flags, "--process=1")))
    assert codes == [42] and len(outputs[0].splitlines()) == 1
    assert "process 1 of 2 did not meet the others" in outputs[0] and "--wait=2 s" in outputs[0]
    assert not (home / "unmet").exists()


@pytest.mark.parametrize(
    "given, message",
    [
        (("10.0.0.1:1", 2, None), "--process missing"),
        ((None, 2, 0), "--coordinator missing"),
        (("10.0.0.1", 2, 0), "--coordinator=10.0.0.1 is not HOST:PORT"),
        (("10.0.0.1:1", 2, 2), "--process=2 is not among --processes=2; .* from 0 to 1"),
        (("10.0.0.1:1", 2, -1), "--process=-1 is not among"),
    ],
)
def test_flags_that_do_not_fit(given, message):
    with pytest.raises(ValueError, match=message):
        distributed.find(*given)


def test_one_process_needs_nothing(monkeypatch):
    for key in [key for key in os.environ if key.startswith("SLURM")]:
        monkeypatch.delenv(key)
    monkeypatch.setattr(distributed, "_tpu_is_here", lambda: False)
    assert distributed.find() is None
    monkeypatch.setattr(distributed, "_tpu_is_here", lambda: True)
    assert distributed.find() == distributed.Cluster()
    assert distributed.find(processes=1) is None  # as in a sweep's worker


def test_slurm_is_found():
    step = {
        "SLURM_JOB_ID": "70001", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "gpu[07-08],big1",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    }  # fmt: skip
    port = 61440 + 70001 % 4096
    assert distributed.of_slurm(step) == distributed.Cluster(f"gpu07:{port}", 8, 5, (1,))
    every = step | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert distributed.of_slurm(every).devices == (1,)
    assert distributed.of_slurm(step | {"CUDA_VISIBLE_DEVICES": "0"}).devices is None
    alone = every | {"SLURM_STEP_TASKS_PER_NODE": "1(x8)", "SLURM_STEP_NODELIST": "a1,a2"}
    assert distributed.of_slurm(alone) == distributed.Cluster(f"a1:{port}", 8, 5, None)
    assert distributed.of_slurm(step | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert distributed.of_slurm({}) is None


@pytest.mark.slow
def test_two_processes_train_as_one_does(home, alone):
    codes, outputs = end(*start_all(home, "two"))
    assert codes == [0, 0], outputs
    assert_same(home, "two", alone)
    result = json.loads((home / "two/result.json").read_text())
    assert result["devices"] == 4 and result["tokens"] == 96 * 8 * 16
    codes, _ = end(*start_all(home, "two"))
    assert codes == [0, 0]  # done already
    codes, _ = end(start(home, "other", 4, seed=1))
    apart = np.abs(losses(home, "other") / losses(home, alone) - 1).max()
    assert codes == [0] and apart > 1e-4  # control: losses can differ


ROWS = """
import sys, jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), cluster_detection_method="deactivate")
from data.kinds import text
from train.parallel import processes, sharding
for sizes in (dict(data=1, fsdp=4), dict(data=2, fsdp=1, tensor=2), dict(data=1, sequence=4)):
    mesh = sharding.make_mesh(sizes, jax.devices())
    where = sharding.batch_shardings(mesh, text.Dataset(None, length=16).spec())["tokens"]
    print("rows", *processes.local_rows(where, (4, 8, 16)))
print("said", processes.exchange("x", 0), processes.exchange("x", processes.index()))
jax.distributed.shutdown()
"""


@pytest.mark.slow
def test_each_process_reads_its_own_rows_and_hears_all():
    flags = "--xla_force_host_platform_device_count=2"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    where = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ROWS, where, str(i)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    for process, own in zip(processes, ("0 1 2 3", "4 5 6 7"), strict=True):
        lines = process.communicate(timeout=120)[0].splitlines()
        found = [line for line in lines if line.startswith(("rows", "said"))]
        every = "rows 0 1 2 3 4 5 6 7"  # the sequence axis splits each row: both read all
        assert found == [f"rows {own}", f"rows {own}", every, "said [0, 0] [0, 1]"], lines


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, after", [("2x2", "1x4"), ("1x1", "2x2"), ("1x4", "2x2"), ("2x2", "2x2")]
)
def test_a_checkpoint_fits_any_other_number_of_processes(home, alone, before, after):
    """The parameters are processes x devices per process, before and after a checkpoint."""
    name = f"{before}-{after}"
    stop_half_way(home, name, several=before == "2x2", devices=int(before[-1]), asked=0)
    if after == "2x2":
        codes, outputs = end(*start_all(home, name))
    else:
        codes, outputs = end(start(home, name, int(after[-1])))
    assert set(codes) == {0} and "resuming at step" in "".join(outputs), outputs
    assert_same(home, name, alone)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_is_killed_and_the_other_leaves_within_15_seconds(home, alone, victim):
    name = f"killed-{victim}"
    processes = start_all(home, name, **LONG)
    wait_for_step(home, name, 40)
    processes[victim].kill()
    killed = time.monotonic()
    codes, outputs = end(processes[1 - victim])
    assert time.monotonic() - killed < 15
    last = outputs[0].splitlines()[-1]
    assert codes == [42] and f"process {1 - victim} of 2 has lost another; run all" in last
    end(processes[victim])
    assert finished(home / name / "checkpoints")


@pytest.mark.slow
def test_all_diverge_alike(home):
    keys = {"optimizer.learning_rate": 1e30, "optimizer.name": "sgd"}
    codes, outputs = end(*start_all(home, "diverged", **keys))
    assert codes == [43, 43], outputs
    assert json.loads((home / "diverged/result.json").read_text())["status"] == "diverged"
    assert (home / "diverged/diverged/diverged.json").exists()


@pytest.mark.slow
def test_what_is_not_alike_is_refused_by_all(home, tmp_path):
    where = f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"
    codes, outputs = end(
        start(home, "unlike", 2, (*where, "--process=0")),
        start(home, "unlike", 2, (*where, "--process=1"), seed=9),
    )
    assert codes == [2, 2] and all("config.seed is 0 in process 0 and 9" in o for o in outputs)
    codes, outputs = end(
        start(home, "unlike", 2, (*where, "--process=0")),
        start(home, "unlike", 2, (where[0], "--processes=3", "--process=1")),
    )
    assert codes == [2, 2] and all("--processes is 2 in process 0 and 3" in o for o in outputs)
    codes, outputs = end(
        start(home, "unlike", 2, (*where, "--process=0")),
        start(home, "unlike", 1, (*where, "--process=1")),
    )
    assert codes == [2, 2] and all("number of devices is 2 in process 0" in o for o in outputs)
    codes, outputs = end(
        start(home, "unlike", 2, (*where, "--process=0")),
        start(home, "unlike", 2, (*where, "--process=1"), **{"data.corpora": "nowhere.txt"}),
    )
    assert codes == [2, 2] and all("process 1: " in o and "nowhere.txt" in o for o in outputs)
    codes, outputs = end(
        *start_all(home, "unlike", **{"train.batch_size": 6, "eval.batch_size": 4})
    )
    assert codes == [2, 2] and all("use 4 or 8" in output for output in outputs)
    assert not (home / "unlike").exists()
