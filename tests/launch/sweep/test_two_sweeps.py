"""Tests of a sweep that meets trials which other processes train."""

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch.errors import DONE, IN_USE, InUse
from launch.runners import RUNNERS, local
from launch.sweep import execution, expand
from launch.trial import folder
from launch.verbs.models import sweep
from tests.launch import fake
from tests.launch.inline import Inline

THREE = (
    f"{fake.CONFIG}\ndef get_sweep(c): return [{{'seed': s, 'seconds': 0.02}} for s in range(3)]\n"
)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The folder of a sweep of three fake trials, run by --on=inline in this process."""
    for name in ("resolve", "trial_id", "describe"):
        monkeypatch.setattr(expand, name, getattr(fake, name))
    monkeypatch.setattr(expand, "prepare", lambda config: None)
    monkeypatch.setattr(expand, "former_ids", lambda resolved: [])
    monkeypatch.setattr(execution, "POLL", 0.02)
    # A handler of signals can be set in the main thread alone.
    monkeypatch.setattr(fake, "signal", SimpleNamespace(signal=lambda *_: None, SIGTERM=15))
    monkeypatch.setitem(RUNNERS, "inline", Inline(trained))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "three.py").write_text(THREE)
    return tmp_path / "runs/s"


def trained(config, workdir, overrides) -> int:
    """A fake trial with the lock of a real one."""
    try:
        with folder.locked(workdir):
            ended = (workdir / "result.json").exists()
            return DONE if ended else fake.run_config(config, workdir, overrides)
    except InUse:
        return IN_USE


def run(config="three.py") -> int:
    return sweep.main([f"--config={config}", "--workdir=runs/s", "--on=inline", "--nofit"])


def ids(config="three.py") -> list[str]:
    return [planned.id for planned in expand.plan(config, {}).trials]


def ran(home: Path) -> list[str]:
    return sorted((home / "runs").read_text().split())


@pytest.mark.parametrize("finishes", [True, False])
def test_a_trial_that_another_process_trains_is_waited_for(home, capfd, finishes):
    first, *others = ids()
    held = contextlib.ExitStack()
    held.enter_context(folder.locked(home / first))

    def let_go():
        time.sleep(0.5)  # for the sweep to say that it waits
        kept = {path.name for path in (home / first).iterdir()}
        if finishes:
            (home / first / "result.json").write_text('{"status": "done", "eval_loss": 1.5}')
        held.close()
        assert kept == {"lock"}  # the sweep wrote nothing there

    done = [home / key / "result.json" for key in others]
    thread = fake.when(lambda: all(path.exists() for path in done), let_go)
    assert run() == 0  # the others are trained meanwhile
    thread.join()
    assert ran(home) == sorted(others if finishes else ids())
    assert all(
        json.loads((home / key / "result.json").read_text())["status"] == "done" for key in ids()
    )
    shown = capfd.readouterr().err
    assert shown.count("waiting for trials in use elsewhere") == 1
    assert f"waiting for trials in use elsewhere: {first} (by process {os.getpid()} on " in shown
    assert shown.rstrip().splitlines()[-1].startswith("3 done; ") and "failed" not in shown


def test_a_trial_that_is_taken_between_the_look_and_the_start_is_no_failure(home, capfd):
    calls = []

    def call(config, workdir, overrides):
        calls.append(workdir.name)
        return IN_USE if len(calls) == 1 else trained(config, workdir, overrides)

    RUNNERS["inline"].instead = call
    assert run() == 0 and len(calls) == 4 and calls[-1] == calls[0]
    assert ran(home) == sorted(ids()) and "failed" not in capfd.readouterr().err


def test_ctrl_c_ends_the_wait(home, capfd):
    with folder.locked(home / ids()[0]):
        said = lambda: len(ran(home)) == 2 if (home / "runs").exists() else False  # noqa: E731
        thread = fake.when(said, os.kill, os.getpid(), signal.SIGINT)
        assert run() == 42
        thread.join()
    assert "The same command goes on from here" in capfd.readouterr().err
    assert not (home / ids()[0] / "result.json").exists()
    assert run() == 0 and len(ran(home)) == 3


def test_two_sweeps_of_one_folder_share_its_trials(home):
    Path("many.py").write_text(THREE.replace("range(3)", "range(12)"))
    codes = []
    other = threading.Thread(target=lambda: codes.append(run("many.py")))
    other.start()
    codes.append(run("many.py"))
    other.join()
    assert codes == [0, 0] and ran(home) == sorted(ids("many.py"))


def test_a_worker_leaves_a_log_that_another_writes_alone(tmp_path):
    log = tmp_path / "t/log.txt"
    call = ("tests.launch.fake:run", ("t", str(tmp_path), "", 0.0), str(log))
    log.parent.mkdir()
    with open(log, "w") as file:
        assert local.lock(file)
        assert local._call(*call) == IN_USE
    assert [path.name for path in log.parent.iterdir()] == ["log.txt"] and not log.read_text()
    assert local._call(*call) == 0 and (log.parent / "result.json").exists()
