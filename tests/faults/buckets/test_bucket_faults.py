"""Runs in a bucket whose processes are frozen and killed: nothing is lost, written twice or wrong.

The bucket is tests/bucket.py: an emulator, on this machine.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from configs import base
from data.buckets import attempts, gcs, lease
from data.files import to_path
from launch.trial import run as trial
from tests.bucket import Request, bucket
from tests.spawn import ROOT
from train import metrics
from train.checkpoint import restore_params
from train.checkpoints import bucket as in_bucket

TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "train.batch_size": 4, "train.duration": "40 steps", "eval.sequences": 16, "seed": 3,
    "log.every": "5 steps", "log.tensorboard": False, "checkpoint.every": "10 steps",
    "train.chunk": 5, "schedule.warmup": "4 steps",
}  # fmt: skip
BEAT, TTL = 0.4, 2.0  # seconds, of the locks here
# A child that trains; with `careless` as a process that asks nobody before it writes.
CHILD = """
import json, sys
from launch.errors import IN_USE, InUse
from tests.faults.buckets import test_bucket_faults as here
if sys.argv[3]:
    from data.buckets import lease
    lease.BucketLease.confirm = lease.BucketLease.check = lambda self: None
try:
    sys.exit(here.train(json.loads(sys.argv[1]), sys.argv[2]))
except InUse:
    sys.exit(IN_USE)  # as the command line does
"""


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


@pytest.fixture
def served(monkeypatch):
    monkeypatch.setenv("ISOFLOP_LOCK", f"{BEAT},{TTL}")
    with bucket() as found:
        yield found


def train(keys: Mapping[str, Any], workdir: str) -> int:
    """The exit code of a trial in `workdir`."""
    config = base.get_config()
    with config.unlocked():
        config.update_from_flattened_dict(dict(keys))
    return trial.run(config, to_path(workdir))


def keys(home: Path) -> dict[str, Any]:
    return TINY | {"data.corpora": (f"{home}/text.txt",), "data.cache": f"{home}/cache"}


def child(home: Path, workdir: str, careless: bool = False) -> subprocess.Popen:
    """Starts a process that trains in `workdir`."""
    given = [json.dumps(keys(home)), workdir, "careless" if careless else ""]
    return subprocess.Popen([sys.executable, "-c", CHILD, *given], cwd=ROOT)


@pytest.fixture(scope="module")
def whole(home) -> Path:
    """A run on this machine that nothing interrupted."""
    assert train(keys(home), str(home / "whole")) == 0
    return home / "whole"


def rows(path: Path) -> list[tuple]:
    """What rows say of the model."""
    return [(r["step"], r.get("loss"), r.get("eval_loss")) for r in metrics.read(path)]


def equal(run: Path, other: Path) -> bool:
    """Whether two runs have the same rows, each once, and the same parameters, bit for bit."""
    leaves = (jax.tree.leaves(restore_params(each / "checkpoints")[0]) for each in (run, other))
    same = all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))
    return same and rows(run / "metrics.jsonl") == rows(other / "metrics.jsonl")


def until(there: Any, process: subprocess.Popen, seconds: float = 90) -> None:
    """Waits until `there()`."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("careless", [False, True])
def test_a_process_frozen_past_its_lock_writes_nothing_when_it_thaws(served, home, whole, careless):
    """Control: one that does not ask before it writes would write."""
    run = to_path("gs://bucket/run")
    frozen = child(home, str(run), careless)
    try:
        until(lambda: served.names("run/checkpoints/10/manifest.json"), frozen)
        frozen.send_signal(signal.SIGSTOP)
        time.sleep(TTL / 4)  # requests on their way arrive
        assert not served.names("run/result.json")
        assert train(keys(home), str(run)) == 0
        assert equal(run, whole)
        before, result = len(served.writes), served.read("run/result.json")
        frozen.send_signal(signal.SIGCONT)
        code = frozen.wait(60)
    finally:
        frozen.kill()
    written = served.writes[before:]
    assert served.read("run/result.json") == result  # also of a careless one: it is there once
    if careless:
        assert written
    else:
        assert code == 75 and written == [] and equal(run, whole)


def _nth_insert(prefix: str, number: int) -> Any:
    """A condition on requests: the `number`-th write of an object under `prefix`."""
    seen = []

    def matches(request: Request) -> bool:
        if request.kind in ("insert", "delete") and request.name.startswith(prefix):
            seen.append(request)
        return len(seen) == number

    return matches


KILLS = {
    "the first file of a checkpoint": ("run/checkpoints/20/", 1),
    "the middle of a checkpoint": ("run/checkpoints/20/", 6),
    "rows": ("run/metrics.jsonl", 2),
    "the manifest": ("run/checkpoints/20/manifest.json", 1),
    "the end of an older checkpoint": ("run/checkpoints/10/manifest.json", 2),
    "the result": ("run/result.json", 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_a_process_killed_while_it_writes_is_continued_bit_equal(served, home, whole, name):
    """The owner is dead, which this machine knows: the next one does not wait."""
    run, when = to_path("gs://bucket/run"), _nth_insert(*KILLS[name])
    served.before = lambda request: when(request) and os.kill(killed.pid, signal.SIGKILL)
    killed = child(home, str(run))
    assert killed.wait(90) == -signal.SIGKILL
    served.before = lambda request: None
    assert served.names("run/lock")
    assert train(keys(home), str(run)) == 0
    assert equal(run, whole)
    assert name == "the result" or not served.names("run/lock")  # there was nothing left to do
    tokens = {n.split("/")[3][:8] for n in served.names("run/checkpoints") if n.count("/") > 3}
    assert len(tokens) <= 2


# The kinds of request before which a process is frozen, deletions included. The taking of the lock
# is the first of its requests.
FREEZES = {
    "the taking of the lock": ("insert", "run/lock"),
    "the start": ("insert", r"run/config\.json"),
    "rows": ("insert", r"run/metrics\.jsonl"),
    "a file of a checkpoint": ("insert", r"run/checkpoints/20/.+/.+"),
    "its listing": ("list", ""),
    "the manifest": ("insert", r"run/checkpoints/20/manifest\.json"),
    "the removal of a manifest": ("delete", r"run/checkpoints/10/manifest\.json"),
    "the removal of objects": ("delete", r"run/checkpoints/10/.+/.+"),
    "a heartbeat": ("insert", "run/lock"),
    "the result": ("insert", r"run/result\.json"),
}


# What has been written before the freeze.
LATE = {"its listing": "run/checkpoints/20/", "a heartbeat": "run/config.json"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FREEZES)
def test_a_process_frozen_at_any_request_changes_nothing_when_it_thaws(served, home, whole, name):
    """The request at which it freezes arrives; nothing of it comes later, except files of its own
    unfinished checkpoint that it was about to send. The next owner's run is equal to one that
    nothing interrupted."""
    (kind, pattern), run, at = FREEZES[name], to_path("gs://bucket/run"), []

    def before(request: Request) -> None:
        matches = request.kind == kind and re.fullmatch(pattern, request.name)
        late = name not in LATE or served.names(LATE[name])
        if matches and late and not at:
            at.append(request)
            os.kill(frozen.pid, signal.SIGSTOP)

    served.before = before
    frozen = child(home, str(run))
    try:
        until(lambda: at, frozen)
        time.sleep(TTL / 4)
        ended = bool(served.names("run/result.json"))
        assert train(keys(home), str(run)) == 0
        assert equal(run, whole)
        writes = len(served.writes)
        frozen.send_signal(signal.SIGCONT)
        code = frozen.wait(60)
    finally:
        frozen.kill()
    later = [(kind, name) for kind, name in served.writes[writes:] if name != "run/lock"]
    assert code == (0 if ended else 75) and equal(run, whole)
    sent = [about for about in later if re.fullmatch(r"run/checkpoints/20/.+/.+", about[1])]
    assert later == (sent[: in_bucket._AT_ONCE] if name == "a file of a checkpoint" else [])


@pytest.mark.slow
def test_a_bucket_that_is_down_is_one_line_and_the_run_goes_on_later(
    served, home, whole, monkeypatch, capfd
):
    """Down for longer than a request is tried, from the manifest of step 20 on."""
    waits = lambda url, within=0: attempts.attempts(url, min(within, 0.3))  # noqa: E731
    monkeypatch.setattr(gcs, "attempts", waits)
    monkeypatch.setattr(lease, "WITHIN", 0.3)
    down = []

    def before(request: Request) -> None:
        if request.name == "run/checkpoints/20/manifest.json" or down:
            down.append(request)
            raise ConnectionError

    served.before = before
    assert train(keys(home), "gs://bucket/run") == 42
    said = capfd.readouterr().err
    assert "Traceback" not in said and said.count("did not answer within") == 1
    assert "run this again, it goes on from the last checkpoint" in said
    served.before = lambda request: None
    assert train(keys(home), "gs://bucket/run") == 0
    assert equal(to_path("gs://bucket/run"), whole)
