"""Runs of two processes in a bucket: equal to those in a folder, and they end when one loses it."""

import json
import time

import numpy as np
import pytest

from data.buckets.lease import Owner
from data.files import to_path
from tests.bucket import bucket
from tests.launch.trial.test_distributed import LONG, end, free_port, start
from train import metrics
from train.checkpoint import damage, finished, restore_params


@pytest.fixture(scope="module")
def home(text_folder, compiled_once):
    return text_folder


def two(home, workdir: str, **overrides) -> list:
    where = f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", f"--workdir={workdir}"
    return [start(home, "x", 1, (*where, f"--process={i}"), **overrides) for i in range(2)]


def rows(run) -> list:
    return [(r["step"], r.get("loss"), r.get("eval_loss")) for r in metrics.read(run)]


@pytest.mark.slow
def test_two_processes_in_a_bucket_train_as_in_a_folder(home):
    with bucket():
        runs = [to_path("gs://bucket/run"), home / "run"]
        for run in runs:
            codes, outputs = end(*two(home, str(run)))
            assert codes == [0, 0], outputs
        remote, local = runs
        assert rows(remote / "metrics.jsonl") == rows(local / "metrics.jsonl")
        steps = [[p.name for p in finished(run / "checkpoints")] for run in runs]
        assert steps[0] == steps[1] and len(steps[0]) > 1
        assert all(damage(path) is None for path in finished(remote / "checkpoints"))
        one, other = (restore_params(run / "checkpoints")[0] for run in runs)
        flat = [json.dumps(tree, default=lambda x: np.asarray(x).tolist()) for tree in (one, other)]
        assert flat[0] == flat[1]
        assert not (remote / "lock").exists()


@pytest.mark.slow
def test_when_the_lock_is_lost_all_processes_leave_soon(home, monkeypatch):
    monkeypatch.setenv("ISOFLOP_LOCK", "0.5,3")
    with bucket() as served:
        processes = two(home, "gs://bucket/run", **LONG)
        latest = time.monotonic() + 120
        while not served.names("run/checkpoints/32/manifest.json"):
            assert time.monotonic() < latest and all(p.poll() is None for p in processes)
            time.sleep(0.05)
        other = Owner(7, "elsewhere", "other", machine="boot/ns")
        to_path("gs://bucket/run/lock").write_bytes(other.content())
        began = time.monotonic()
        codes, outputs = end(*processes)
    assert codes == [75, 42], outputs
    assert time.monotonic() - began < 60, outputs
    assert "was taken over by process 7 on elsewhere" in outputs[0]
