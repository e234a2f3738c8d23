"""Tests a trial with rollouts that two processes train together, over gloo on this machine."""

import json
import socket
from pathlib import Path

import numpy as np
import pytest

from tests import spawn
from tests.train.objectives.policy import prompts
from train import metrics

MEASURED = ("loss", "reward", "kl", "entropy", "response_length", "grad_norm")
KEYS = {"objective.samples": "4", "objective.buckets": "2", "objective.kl": "0.1"}


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once) -> Path:
    """With prompts of 3 to 6 tokens, so that buckets differ in width."""
    folder = tmp_path_factory.mktemp("processes")
    prompts.base(folder)
    rng = np.random.default_rng(0)
    asked = [f"{'1' * rng.integers(0, 4)}{i % 10}{i // 10}=" for i in range(100)]
    lines = [json.dumps({"prompt": p, "answer": "a"}) + "\n" for p in asked]
    (folder / "asked.jsonl").write_text("".join(lines))
    return folder


def train(home: Path, name: str, count: int, **keys: str) -> np.ndarray:
    """Trains in `count` processes with a device each. The metrics of each rollout, and of the
    evaluation."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    given = prompts.keys_of(home, **KEYS | keys) | {"data.corpora": f"{home}/asked.jsonl"}
    several = f"--coordinator=127.0.0.1:{port}", f"--processes={count}"
    flags = [(*several, f"--process={i}") if count > 1 else () for i in range(count)]
    started = [spawn.train(home, name, given, *of) for of in flags]
    outputs = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, outputs
    result = json.loads((home / name / "result.json").read_text())
    assert result["devices"] == count and result["rollout_tokens_per_second"] > 0
    rows = metrics.read(home / name / "metrics.jsonl")
    found = [[row[key] for key in MEASURED] for row in rows if "loss" in row]
    assert len(found) == 4
    return np.array([*found, [rows[-1]["eval_reward"], rows[-1]["eval_kl"]] * 3])


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", ["False", "True"])
def test_two_processes_train_the_trial_of_one(home, prefetch):
    keys = {"objective.prefetch": prefetch}
    one, two = (train(home, f"{n}{prefetch}", n, **keys) for n in (1, 2))
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-5)
    other = train(home, f"seed{prefetch}", 1, **keys | {"seed": "1"})  # control
    assert np.abs(other - one).max() > 1e-3
