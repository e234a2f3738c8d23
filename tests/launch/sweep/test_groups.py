"""Tests of which trials of a sweep are grouped, and that grouping changes no result."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import base
from data.buckets.lease import LostLock
from data.files import to_path
from launch.errors import BUG, DONE, IN_USE
from launch.runners.tasks import Event
from launch.sweep import execution, groups
from train import metrics
from train.checkpoint import finished

ROOT = Path(__file__).resolve().parents[3]


@dataclasses.dataclass
class Planned:
    """The fields of `launch.sweep.expand.Planned` that grouping reads."""

    id: str
    config: object
    cost: float


def planned(name: str, /, cost: float = 1.0, **changes) -> Planned:
    config = base.get_config()
    config.update_from_flattened_dict(changes)
    return Planned(name, config, cost)


def named(grouped: list) -> list[str]:
    return ["".join(trial.id for trial in members) for members in grouped]


NUMBERS = {
    "a": {"seed": 1},
    "b": {"optimizer.learning_rate": 3e-3, "optimizer.weight_decay": 0.0},
    "c": {"optimizer.b1": 0.8, "optimizer.b2": 0.99, "optimizer.eps": 1e-6},
    "d": {"schedule.warmup": "5 %", "schedule.final": 0.0, "optimizer.clip_norm": 0.0},
    "e": {"name": "other"},
}
SHAPES = {
    "u": {"model.d_model": 64},
    "v": {"optimizer.name": "lion"},
    "w": {"train.duration": "4e6 tokens"},
    "x": {"train.batch_size": 16},
    "y": {"schedule.name": "linear"},
    "z": {"checkpoint.every": "10 %"},
}


def test_trials_that_differ_in_numbers_alone_make_a_group():
    trials = [planned(name, **changes) for name, changes in (NUMBERS | SHAPES).items()]
    assert named(groups.groups(trials, 128, 1)) == ["abcde", "u", "v", "w", "x", "y", "z"]
    assert named(groups.groups(trials, 1, 1)) == list("abcdeuvwxyz")
    assert named(groups.groups(trials[::-1], 3, 1)) == ["abc", "de", "z", "y", "x", "w", "v", "u"]


def test_groups_leave_no_device_idle_and_the_costliest_is_first():
    stackable = [planned(name, seed=i) for i, name in enumerate("abcdef")]
    assert named(groups.groups(stackable, 128, 1)) == ["abcdef"]
    assert named(groups.groups(stackable, 128, 2)) == ["abc", "def"]
    assert named(groups.groups(stackable, 128, 4)) == ["ab", "cd", "ef"]
    large = [planned(name, 10.0, **{"model.d_model": 64, "seed": i}) for i, name in enumerate("xy")]
    assert named(groups.groups(stackable + large, 128, 2)) == ["xy", "abcdef"]
    assert named(groups.groups([], 128, 0)) == []


def test_a_trial_for_several_devices_is_in_no_group():
    wide = {"mesh.data": 2, "mesh.fsdp": 1}
    trials = [planned(name, seed=i, **wide) for i, name in enumerate("ab")]
    assert named(groups.groups(trials, 128, 1)) == ["a", "b"]


def test_cpus_have_groups_only_if_they_are_asked_for():
    assert (
        groups.most("auto", "cpu") == 1 < groups.most("auto", "gpu") == groups.most("auto", "tpu")
    )
    assert groups.most("off", "gpu") == 1 and groups.most("16", "cpu") == 16
    for wrong in ("0", "-1", "many", "1.5"):
        with pytest.raises(ValueError, match=f"population={wrong} is not a number of trials; use"):
            groups.most(wrong, "gpu")


def test_trials_whose_group_failed_wait_to_be_trained_apart(tmp_path):
    seen = []

    class Live:
        def event(self, event, state):
            seen.append((event.key, event.kind, state))

    (tmp_path / "a").mkdir()
    (tmp_path / "a/result.json").write_text('{"status": "diverged"}')
    for name in "ab":
        execution._note(planned(name), Event("finished", "a", 3, BUG), True, tmp_path, Live())
    assert seen == [("a", "finished", "diverged"), ("b", "retried", "waiting")]
    execution._note(planned("a"), Event("finished", "a", 1, DONE), False, tmp_path, Live())
    assert seen[2] == ("a", "finished", "done")


SWEEP = """
from configs import base

def get_config(arg=None):
    config = base.get_config()
    config.model.update(n_layers=1, d_model=16, n_heads=2, context_length=16, attention_bias=False)
    config.optimizer.eps = 1e-6
    config.train.update(batch_size=4, duration="STEPS steps", chunk=8)
    config.eval.update(sequences=16, batch_size=8, every="50 %")
    config.data.update(corpora=("text.txt",), validation=0.2)
    config.checkpoint.every = "50 steps"
    return config

def get_sweep(config):
    rates = [1e-3, 2e-3, 1e30]
    wide = {"model.d_model": 32}
    return [{"optimizer.learning_rate": r, "optimizer.clip_norm": 0.0} for r in rates] + [wide]
"""


def start(home: Path, *argv: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch", "sweep", "--config=few.py", "--nofit", *argv],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(folder: Path) -> dict[str, dict]:
    files = folder.glob("*/result.json")
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def without_clock(row: dict) -> dict:
    clock = {"seconds", "goodput", "tokens_per_second", "model_flops_per_second", "compile_seconds"}
    clock |= {"sweep", "versions"}  # the folder, and the commit, which may change meanwhile
    return {k: v for k, v in row.items() if k not in clock}


def assert_close(one, other, rel: float = 1e-6) -> None:
    """Asserts equality, with floats to 1e-6, and to 1e-3 for the standard error of the loss.

    The standard error loses digits to cancellation.
    """
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key], 1e-3 if key in ("eval_loss_se", "se") else rel)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b, rel)
    else:
        assert one == (pytest.approx(other, rel=rel) if isinstance(one, float) else other)


@pytest.mark.slow
def test_a_stacked_sweep_writes_what_a_sweep_of_processes_writes(home_of_a_sweep):
    home, ended = home_of_a_sweep, []
    for name, most in (("apart", "off"), ("together", "2"), ("all", "16")):
        sweep_ = start(home, f"--workdir=runs/{name}", f"--population={most}")
        output = sweep_.communicate(timeout=600)[0]
        assert sweep_.returncode == 0, output
        ended.append(results(home / "runs" / name))
    for found, name in zip(ended[1:], ("together", "all"), strict=True):
        assert found.keys() == ended[0].keys()
        assert sorted(r["status"] for r in found.values()) == ["diverged", "done", "done", "done"]
        for key, result in found.items():
            assert_close(without_clock(result), without_clock(ended[0][key]))
            rows = [metrics.read(home / f"runs/{f}/{key}/metrics.jsonl") for f in (name, "apart")]
            assert_close(*[[without_clock(row) for row in r] for r in rows])
            assert {p.name for p in (home / f"runs/{name}/{key}").iterdir()} == {
                p.name for p in (home / f"runs/apart/{key}").iterdir()
            }
    with pytest.raises(AssertionError):  # control: two trials differ
        assert_close(*[without_clock(r) for r in list(ended[0].values())[:2]])


@pytest.fixture
def home_of_a_sweep(tmp_path) -> Path:
    text = "".join(f"Line {i} of the text, {i * i % 97}.\n\n" for i in range(2000))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "few.py").write_text(SWEEP.replace("STEPS", "40"))
    return tmp_path


@pytest.mark.slow
def test_an_interrupted_group_saves_all_and_goes_on(home_of_a_sweep):
    home = home_of_a_sweep
    (home / "few.py").write_text(SWEEP.replace("STEPS", "20000"))
    argv = ("--workdir=runs/s", "--population=16", "--config.train.max_loss_ratio=100")
    first = start(home, *argv)
    began = time.monotonic()
    while first.poll() is None and time.monotonic() - began < 300:
        if len([f for f in home.glob("runs/s/*/checkpoints") if finished(f)]) >= 2:
            break
        time.sleep(0.2)
    first.send_signal(signal.SIGINT)
    output = first.communicate(timeout=300)[0]
    assert first.returncode == 42, output
    newest = [finished(folder)[0].name for folder in home.glob("runs/s/*/checkpoints")]
    assert len(newest) >= 2 and newest.count(max(newest, key=newest.count)) >= 2, newest
    again = start(home, *argv)
    output = again.communicate(timeout=600)[0]
    assert again.returncode == 0, output
    assert len(results(home / "runs/s")) == 4
    logs = "".join(log.read_text() for log in home.glob("runs/s/*/log.txt"))
    assert logs.count("resuming at step") >= 2, logs


@pytest.fixture
def group(text_folder, compiled_once, tmp_path):
    """The arguments of two small trials that can be stacked."""
    trials = []
    for seed in range(2):
        config = base.get_config()
        config.update_from_flattened_dict(
            {
                "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "seed": seed,
                "model.context_length": 16, "train.batch_size": 4, "train.duration": "16 steps",
                "train.chunk": 8, "eval.sequences": 16, "eval.batch_size": 8,
                "log.tensorboard": False, "data.corpora": (f"{text_folder}/text.txt",),
                "data.cache": f"{text_folder}/cache", "name": f"t{seed}",
            }
        )  # fmt: skip
        trials.append((config, tmp_path / f"t{seed}", {}))
    return trials


@pytest.mark.slow
def test_the_ledger_of_a_stacked_trial_counts_imports_and_data(group, monkeypatch):
    """From the call on, to the result."""
    real, slow = groups.prepare, 0.5

    def prepare(config):
        time.sleep(slow)
        return real(config)

    monkeypatch.setattr(groups, "prepare", prepare)
    begun = time.time()
    assert groups.run(group) == DONE
    for _, folder, _ in group:
        wall = (folder / "result.json").stat().st_mtime - begun
        found = json.loads((folder / "result.json").read_text())["goodput"]
        assert sum(found["seconds"].values()) == pytest.approx(found["wall_seconds"])
        assert wall - slow < found["wall_seconds"] < wall + 0.1
        assert found["seconds"]["start_up"] > slow and found["seconds"]["train"] > 0


@pytest.mark.slow
def test_a_lost_lock_at_the_result_of_one_trial_leaves_the_others(group, monkeypatch):
    real = groups.trial.end

    def end(resolved, dataset, record, *given):
        if record.workdir.name == "t0":
            raise LostLock(f"{record.workdir} was taken over by process 7 on elsewhere")
        real(resolved, dataset, record, *given)

    monkeypatch.setattr(groups.trial, "end", end)
    assert groups.run(group) == IN_USE
    assert [(folder / "result.json").exists() for _, folder, _ in group] == [False, True]
    assert "t0 was taken over by process 7" in (group[0][1] / "log.txt").read_text()


def test_logs_are_locked_on_this_machine_only(tmp_path, monkeypatch):
    """A log in a bucket is written to a private copy, which keeps nobody out."""
    asked = []
    monkeypatch.setattr(groups, "lock", lambda file: asked.append(file))
    monkeypatch.setattr(groups, "appending", lambda log: contextlib.nullcontext(log))
    there = to_path("gs://bucket/sweep/t1/log.txt")
    with groups._locked([tmp_path / "t0/log.txt", there]) as logs:
        assert list(logs) == [tmp_path / "t0/log.txt", there]
    assert asked == [tmp_path / "t0/log.txt"]
