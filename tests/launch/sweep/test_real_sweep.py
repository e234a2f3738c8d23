"""Tests of a real sweep whose workers are killed, and of resuming a run on 8 virtual devices."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train import metrics
from train.checkpoint import finished, restore_params

ROOT = Path(__file__).resolve().parents[3]
SWEEP = """
from configs import base

def get_config(arg=None):
    config = base.get_config()
    config.model.update(n_layers=1, d_model=16, n_heads=2, context_length=16)
    config.train.update(batch_size=8, duration="3000 steps")
    config.eval.update(sequences=16, batch_size=8, every="25 %")
    config.checkpoint.every = "100 steps"
    config.data.update(corpora=("text.txt",), validation=0.2)
    return config

def get_sweep(config):
    return [{"seed": seed} for seed in range(20)]
"""
pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path) -> Path:
    text = "".join(f"Line {i} of the text, {i * i % 97}.\n\n" for i in range(9000))
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "many.py").write_text(SWEEP)
    return tmp_path


def start(home: Path, *argv: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "launch", *argv],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def workers(parent: int) -> list[int]:
    """The ids of a sweep's workers: child processes that multiprocessing spawned to run trials."""
    ids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(words[1]) == parent and b"spawn_main" in command:
            ids.append(int(entry.name))
    return ids


@pytest.mark.skipif(not Path("/proc").exists(), reason="this machine has no /proc")
def test_20_trials_survive_the_death_of_their_workers(home):
    """A trial that loses three workers is recorded as failed; the same command runs it again."""
    rng, kills = random.Random(0), 0
    argv = ("sweep", "--config=many.py", "--workdir=runs/s", "--workers=3", "--nofit")
    sweep = start(home, *argv)
    while sweep.poll() is None:
        time.sleep(8 + 8 * rng.random())
        alive = workers(sweep.pid)
        if alive and kills < 6:
            os.kill(rng.choice(alive), signal.SIGKILL)
            kills += 1
    output = sweep.communicate()[0]
    assert kills >= 3, output
    results = [json.loads(p.read_text()) for p in home.glob("runs/s/*/result.json")]
    assert len(results) == 20, output
    failed = [r for r in results if r["status"] != "done"]
    assert len(failed) <= kills // 3 and all(r["attempts"] == 3 for r in failed), output
    if failed:
        again = start(home, *argv)
        output = again.communicate()[0]
        assert again.returncode == 0, output
    results = [json.loads(p.read_text()) for p in home.glob("runs/s/*/result.json")]
    assert [r["status"] for r in results] == ["done"] * 20
    assert sorted(r["seed"] for r in results) == list(range(20))
    for path in home.glob("runs/s/*/metrics.jsonl"):
        steps = [row["step"] for row in metrics.read(path) if "loss" in row]
        assert steps == sorted(set(steps)) and steps[-1] == 3000


def test_a_run_on_8_devices_resumes_to_the_same_bits(home):
    flags = "--xla_force_host_platform_device_count=8"
    keys = ("--config.train.duration=600 steps", "--config.model.dropout=0.1")
    argv = ("train", "--config=many.py", *keys)
    whole = start(home, *argv, "--workdir=runs/whole", XLA_FLAGS=flags)
    output = whole.communicate(timeout=900)[0]
    assert whole.returncode == 0, output
    stopped = start(home, *argv, "--workdir=runs/stopped", XLA_FLAGS=flags)
    while stopped.poll() is None and not finished(home / "runs/stopped/checkpoints"):
        time.sleep(0.1)
    stopped.send_signal(signal.SIGTERM)
    output = stopped.communicate(timeout=900)[0]
    assert stopped.returncode == 42, output
    again = start(home, *argv, "--workdir=runs/stopped", XLA_FLAGS=flags)
    output = again.communicate(timeout=900)[0]
    assert again.returncode == 0 and "resuming at step" in output, output
    ours, theirs = (
        restore_params(home / f"runs/{name}/checkpoints")[0] for name in ("stopped", "whole")
    )
    assert ours["embed"]["embedding"].tobytes() == theirs["embed"]["embedding"].tobytes()
    up = [tree["blocks"]["mlp"]["up"]["kernel"].tobytes() for tree in (ours, theirs)]
    assert up[0] == up[1]
