"""Tests of what a run in a bucket shows while it trains."""

import tempfile
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from data.buckets.lease import LostLock
from data.files import path_of
from tests import bucket
from train.metrics import MetricsLog, read
from train.record import Record


def test_tensorboard_and_samples_are_copied_at_saves_and_at_the_end():
    with bucket.bucket("shown") as served:
        workdir = path_of(f"{served.url}/run", "workdir")
        log = MetricsLog(workdir, tensorboard=True)
        log.rewind(0, {"seed": 1.0})
        log.write({"step": 1, "loss": 2.0})
        log.write_sample({"step": 1, "tokens": 8, "prompt": "a", "text": "b"})
        assert not served.names("run/tensorboard/")
        log.copy()
        (name,) = served.names("run/tensorboard/")
        before = served.read(name)
        log.write({"step": 2, "loss": 1.0})
        log.close(done=True)
        assert served.names("run/tensorboard/") == [name]
        assert served.read(name).startswith(before) and len(served.read(name)) > len(before)
        assert [row["step"] for row in read(workdir / "metrics.jsonl")] == [1, 2]
        assert read(workdir / "samples.jsonl")[0]["text"] == "b"
        again = MetricsLog(workdir, tensorboard=True)
        again.rewind(1, {"seed": 1.0})
        again.close()
        assert len(served.names("run/tensorboard/")) == 2
        assert [row["step"] for row in read(workdir / "metrics.jsonl")] == [1]


@dataclass
class Taken:
    """The lock of a folder, which another process takes."""

    token: str = "mine"
    lost: bool = False

    def confirm(self) -> None:
        if self.lost:
            raise LostLock("taken")

    check = confirm


def test_no_thread_and_no_folder_is_left_after_a_lost_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, lock = set(threading.enumerate()), Taken()
    with bucket.bucket("lost") as served:
        log = MetricsLog(path_of(f"{served.url}/run", "workdir"), tensorboard=True, lease=lock)
        log.rewind(0)
        log.write({"step": 1, "loss": 2.0})
        log.write_sample({"step": 1, "tokens": 8, "prompt": "a", "text": "b"})
        mirrors = [t for t in threading.enumerate() if t.name == "mirror" and t not in before]
        assert len(mirrors) == 3 and list(tmp_path.iterdir())
        lock.lost = True
        with pytest.raises(LostLock):
            log.close(done=True)
        for thread in mirrors:
            thread.join(5)
        assert not any(thread.is_alive() for thread in mirrors)
        assert not list(tmp_path.iterdir()) and not served.names("run/tensorboard/")


def test_a_record_closes_its_log_after_a_lost_lock():
    """Leaving a Record asks for the lock first."""
    record, closed = object.__new__(Record), []
    record.lease, record.status = Taken(lost=True), "stopped"
    record.log = SimpleNamespace(close=lambda done: closed.append(done))
    with pytest.raises(LostLock):
        record.__exit__(None, None, None)
    assert closed == [False]
