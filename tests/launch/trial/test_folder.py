"""Tests of the folder of a trial: its identity, damaged files and its lock."""

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from configs import base
from launch import __main__ as command_line
from launch.errors import IN_USE, BadInput, InUse
from launch.files import read_json
from launch.sweep import groups
from launch.trial import folder
from launch.trial import run as trial
from tests import disks, spawn
from train import checkpoint, metrics
from train.checkpoints.manifest import sha256

TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "train.batch_size": 4, "train.duration": "40 steps", "eval.sequences": 16, "seed": 3,
    "log.tensorboard": False, "checkpoint.every": "10 steps", "train.chunk": 4,
}  # fmt: skip
WSD = {
    "schedule.name": "wsd", "schedule.warmup": "4 steps", "checkpoint.keep_at": "20 steps",
}  # fmt: skip
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def flags(home: Path, workdir: Path, **changes) -> list[str]:
    keys = {"data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache"} | TINY | changes
    given = [f"--config.{key}={value}" for key, value in keys.items() if value is not None]
    return ["train", f"--workdir={workdir}", "--config=configs/base.py", *given]


def train(home: Path, workdir: Path, **changes) -> int:
    return command_line.main(flags(home, workdir, **changes))


@pytest.fixture(scope="module")
def whole(home) -> Path:
    assert train(home, home / "whole") == 0
    return home / "whole"


@pytest.fixture
def run(whole, tmp_path) -> Path:
    """A copy of a finished run."""
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def refused(capsys, code: int) -> str:
    """The one-line error of a command that ended with exit code 2."""
    error = capsys.readouterr().err.strip()
    assert code == 2 and "Traceback" not in error and len(error.splitlines()) == 1, error
    return error


def bits(run: Path) -> bytes:
    params = checkpoint.restore_params(run / "checkpoints")[0]
    return b"".join(leaf.tobytes() for _, leaf in sorted(leaves("", params)))


def leaves(name: str, tree: dict) -> list:
    pairs = [(f"{name}/{key}", value) for key, value in tree.items()]
    return [x for n, v in pairs for x in (leaves(n, v) if isinstance(v, dict) else [(n, v)])]


def files(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.rglob("*")}


# Which trial the checkpoints belong to.


@pytest.mark.slow
def test_checkpoints_of_another_config_are_not_taken_for_this_trial(home, run, capsys):
    (run / "config.json").unlink()
    (run / "result.json").unlink()
    before = files(run)
    other = {"optimizer.learning_rate": 0.01, "seed": 4}
    line = refused(capsys, train(home, run, **other))
    assert "config.optimizer.learning_rate is 0.001 there and 0.01 here" in line
    assert files(run) == before


def test_a_run_whose_json_files_are_deleted_writes_them_again(home, run, whole):
    (run / "config.json").unlink()
    (run / "result.json").unlink()
    assert train(home, run) == 0
    assert bits(run) == bits(whole)
    for key in ("id", "eval_loss", "hyperparameters", "curve", "params"):
        assert read_json(run / "result.json")[key] == read_json(whole / "result.json")[key]


def test_checkpoints_that_name_no_trial_still_resume(home, run, whole):
    """As older versions wrote them."""
    for path in checkpoint.finished(run / "checkpoints"):
        body = json.loads((path / checkpoint.MANIFEST).read_text())
        del body["meta"]["config"], body["sha256"]
        body["sha256"] = sha256(json.dumps(body, sort_keys=True).encode())
        (path / checkpoint.MANIFEST).write_text(json.dumps(body))
    (run / "config.json").unlink()
    (run / "result.json").unlink()
    shutil.rmtree(checkpoint.finished(run / "checkpoints")[0])
    assert train(home, run) == 0 and bits(run) == bits(whole)


def test_counted_checkpoints_name_their_trial_too(home, tmp_path, capsys):
    keys = {"model.family": "ngram", "model.order": 3, "eval.sequences": 16}
    keys |= dict.fromkeys(("model.n_layers", "model.d_model", "model.n_heads"))
    assert train(home, tmp_path / "n", **keys) == 0
    (tmp_path / "n/config.json").unlink()
    (tmp_path / "n/result.json").unlink()
    capsys.readouterr()
    line = refused(capsys, train(home, tmp_path / "n", **keys | {"model.order": 2}))
    assert "config.model.order is 3 there and 2 here" in line


# Messages that name what the user set.


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"train.duration": "60 steps"},
            "config.train.duration is '40 steps' there and '60 steps'",
        ),
        ({"train.duration": "3840 tokens"}, "config.train.duration is '40 steps' there and '60 st"),
        ({"model.d_model": 32}, "config.model.d_model is 16 there and 32 here; choose another"),
        ({"train.batch_per_device": 8}, "config.train.batch_per_device is 0 there and 8 here"),
        ({"train.batch_size": 8, "train.duration": "2560 tokens"}, "config.train.batch_size is 4"),
        ({"data.tokenizer": "chars"}, "config.data.tokenizer is 'bytes' there and 'chars' here"),
        ({"eval.every": "5 %"}, "config.eval.every is '4 steps' there and '2 steps' here"),
        ({"seed": 0}, "config.seed is 3 there and 0 here"),
    ],
)
def test_a_refusal_names_the_key_that_was_set(home, run, capsys, changes, message):
    assert message in refused(capsys, train(home, run, **changes))


def test_a_config_file_that_sets_the_duration_is_named_like_a_flag(home, run, tmp_path, capsys):
    keys = {"data.corpora": (f"{home}/text.txt",), "data.cache": f"{home}/cache"} | TINY
    lines = "from configs import base\n\ndef get_config():\n    config = base.get_config()\n"
    keys |= {"train.duration": "3840 tokens"}
    lines += f"    config.update_from_flattened_dict({keys!r})\n    return config\n"
    (tmp_path / "longer.py").write_text(lines)
    code = command_line.main(["train", f"--config={tmp_path}/longer.py", f"--workdir={run}"])
    line = refused(capsys, code)
    assert "config.train.duration is '40 steps' there and '60 steps' here" in line
    assert f"--config.train.init_from={run}" in line


def test_what_it_says_of_longer_runs_works(home, run, tmp_path, capsys):
    longer = {"train.duration": "60 steps"}
    line = refused(capsys, train(home, run, **longer))
    assert f"choose another --workdir and add --config.train.init_from={run}" in line
    start = {"train.init_from": run} | longer
    start |= dict.fromkeys(key for key in TINY if key.startswith("model."))
    assert train(home, tmp_path / "on", **start) == 0
    assert read_json(tmp_path / "on/result.json")["parent"]["init_from"] == str(run)


@pytest.mark.slow
def test_what_it_says_of_longer_wsd_runs_works(home, tmp_path, capsys):
    assert train(home, tmp_path / "run", **WSD) == 0
    capsys.readouterr()
    longer = WSD | {"train.duration": "60 steps"}
    line = refused(capsys, train(home, tmp_path / "run", **longer))
    assert "config.train.duration is '40 steps' there and '60 steps' here" in line
    assert f"and add --config.checkpoint.trunk={tmp_path}/run" in line
    assert train(home, tmp_path / "on", **longer, **{"checkpoint.trunk": tmp_path / "run"}) == 0
    assert read_json(tmp_path / "on/result.json")["branched_at"] > 0


# The lock.


def test_a_second_run_in_a_folder_is_refused_while_the_first_trains(home, capsys):
    """The first run is paused while it holds the lock."""
    keys = {"train.duration": "4000 steps", "log.every": "4 steps"}
    run, log = home / "held", home / "held" / "metrics.jsonl"
    first = spawn.train(home, "held", TINY | keys)
    try:
        while first.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)
        before = log.read_bytes()
        line = refused(capsys, train(home, run, **keys))
        assert f"workdir={run} is in use by process {first.pid} on " in line
        assert log.read_bytes() == before
        first.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGTERM)
        assert first.wait(120) == 42
    finally:
        first.kill()


def test_a_lock_is_free_again_after_its_run(home, tmp_path, capsys):
    config = base.get_config()
    config.data.corpora, config.data.cache = (f"{home}/text.txt",), f"{home}/cache"
    assert folder.owner(tmp_path / "run") == ""
    with folder.locked(tmp_path / "run"), pytest.raises(InUse, match="is in use by process"):
        assert folder.owner(tmp_path / "run") == f"process {os.getpid()} on {socket.gethostname()}"
        before = files(tmp_path / "run")
        assert groups.run_one(config, tmp_path / "run", {}) == IN_USE
        assert files(tmp_path / "run") == before
        with folder.locked(tmp_path / "run"):
            pass
    assert folder.owner(tmp_path / "run") == ""
    (tmp_path / "run/config.json.123.tmp").touch()  # left by a run that was killed while writing
    assert train(home, tmp_path / "run") == 0
    assert not list((tmp_path / "run").glob("*.tmp"))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, None])
def test_a_file_system_without_working_locks_is_refused(tmp_path, monkeypatch, number):
    """One that has no locks, and (None) one that gives a lock to two."""

    def without(*_):
        if number:
            raise OSError(number, "No locks available")

    (tmp_path / "sweep.json").touch()
    folder.require_locks(tmp_path / "sweep.json")  # control: this one's locks work
    with folder.locked(tmp_path / "run"):
        pass
    monkeypatch.setattr(fcntl, "flock", without)
    about = "is on a file system without working locks .flock., so two processes could"
    with pytest.raises(BadInput, match=about), folder.locked(tmp_path / "run"):
        pass
    with pytest.raises(BadInput, match=about):
        folder.require_locks(tmp_path / "sweep.json")


def test_locks_are_tried_on_files_that_are_open_for_writing(tmp_path, monkeypatch):
    """NFS 4 answers EBADF to an exclusive lock of another one (man 2 flock)."""
    real = fcntl.flock

    def flock(file, how):
        if how & fcntl.LOCK_EX and not file.writable():
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "sweep.json").touch()
    folder.require_locks(tmp_path / "sweep.json")
    with folder.locked(tmp_path / "run"):
        pass


def test_a_file_that_another_sweep_replaces_is_no_fault_of_its_locks(tmp_path, monkeypatch):
    file, done = tmp_path / "sweep.json", threading.Event()
    file.touch()

    def replace():
        while not done.is_set():
            os.replace(shutil.copy(file, tmp_path / "new"), file)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(500):
            folder.require_locks(file)
        monkeypatch.setattr(os.path, "sameopenfile", lambda *_: True)  # control
        with pytest.raises(BadInput):
            for _ in range(20_000):
                folder.require_locks(file)
    finally:
        done.set()
        thread.join()


# Damaged files.


@pytest.mark.parametrize("content", ["[1]", "{}", '{"status": 3}', "3", DEEP, "\udcff", "", "{"])
def test_a_damaged_result_is_one_line(home, run, capsys, content):
    (run / "result.json").write_bytes(content.encode(errors="surrogateescape"))
    line = refused(capsys, train(home, run))
    assert str(run / "result.json") in line and "delete it and run again" in line
    (run / "result.json").unlink()
    assert train(home, run) == 0  # the advice works


@pytest.mark.parametrize(
    "content", ["[]", "3", DEEP, "\udcff", "", "{", '{"model": 3}', '{"model": {"family": []}}']
)
def test_a_damaged_config_is_one_line(home, run, capsys, content):
    (run / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    line = refused(capsys, train(home, run))
    assert str(run) in line and len(line) < 1000
    assert command_line.main(["sample", f"--run={run}"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    (run / "config.json").unlink()
    assert train(home, run) == 0


def test_damaged_rows_of_metrics_are_dropped(home, run, whole):
    """A tail that is not UTF-8, a bare number, a row without a step, and a deeply nested row."""
    (run / "result.json").unlink()
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'7\n{"loss": 1.0}\n{"step": "x"}\n' + DEEP.encode() + b'\n{"step": 3, "\xff')
    assert train(home, run) == 0
    assert metrics.read(run / "metrics.jsonl") == metrics.read(whole / "metrics.jsonl")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == len(
        (whole / "metrics.jsonl").read_text().splitlines()
    )


def test_a_folder_that_cannot_be_written_is_one_line(home, tmp_path, capsys):
    with disks.read_only(tmp_path / "place") as place:
        line = refused(capsys, train(home, place / "run"))
        assert f"workdir={place}/run cannot be written (" in line
    (tmp_path / "file").touch()
    assert "cannot be written (Not a directory)" in refused(capsys, train(home, tmp_path / "file"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_a_disk_that_fails_while_training_is_one_line(tmp_path, capsys, number):
    def act(stop):
        raise OSError(number, os.strerror(number), str(tmp_path))

    assert str(tmp_path) in refused(capsys, trial.guarded(act, tmp_path))
    with pytest.raises(OSError, match="Bad address"):  # control: a bug keeps its traceback
        number = errno.EFAULT
        trial.guarded(act, tmp_path)


def test_slow_imports_are_not_needed_to_plan():
    code = "import sys, launch.trial.folder; sys.exit('orbax.checkpoint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=spawn.ROOT).returncode == 0
