"""Tests of SIGKILL at random moments: the resumed run has the same bits, and no row is lost.

The fast form is in tests/train/test_loop.py.
"""

import json
import random
from pathlib import Path

import pytest

from tests import spawn
from tests.faults.training import killed
from tests.launch.trial.test_trunk import state
from tests.train.test_loop import numbers
from train import metrics
from train.checkpoint import finished

pytestmark = pytest.mark.slow
STEPS, EVERY, KILLS = 60, 4, 20
TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "model.dropout": 0.1, "train.batch_size": 4, "train.duration": f"{STEPS} steps",
    "train.chunk": 4, "eval.sequences": 16, "eval.batch_size": 8, "eval.every": "20 steps",
    "checkpoint.every": "12 steps", "log.every": f"{EVERY} steps", "log.tensorboard": "false",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


@pytest.fixture(scope="module")
def runs(home):
    with killed.parent() as parent:
        yield parent


@pytest.fixture(scope="module")
def whole(home, runs) -> Path:
    assert runs(spawn.arguments(home, "whole", TINY)) == 0
    return home / "whole"


def kills() -> list[dict]:
    """20 moments: half of them at steps, three of them in mid-row, and half of them in mid-save."""
    rng = random.Random(0)
    steps = [{"at": "step", "step": rng.randrange(1, STEPS)} for _ in range(7)]
    rows = [{"at": "row", "step": rng.randrange(EVERY, STEPS, EVERY)} for _ in range(3)]
    saves = [
        {"at": "save", "step": rng.randrange(12, STEPS, 12), "after": rng.random() * 0.06}
        for _ in range(10)
    ]
    return steps + rows + saves


def lost_rows(run: Path, step: int) -> int:
    """How many rows are missing of those that were due before the chunk that ends at `step`."""
    steps = [row["step"] for row in metrics.read(run / "metrics.jsonl") if "loss" in row]
    assert len(steps) == len(set(steps))
    return len([due for due in range(EVERY, step + 1, EVERY) if due not in steps])


def killed_and_resumed(home: Path, runs: killed.Runs, name: str, kill: dict) -> int:
    """Kills a run and resumes it; returns the number of rows that the kill lost."""
    arguments = spawn.arguments(home, name, TINY)
    assert runs(arguments, kill) == -9
    step = min(STEPS, -(-kill["step"] // EVERY) * EVERY)  # the end of its chunk
    lost = lost_rows(home / name, step)
    assert runs(arguments) == 0
    return lost


def assert_same(one: Path, other: Path) -> None:
    """Parameters, moments, losses and rows."""
    newest, *_ = finished(one / "checkpoints")
    assert newest.name == str(STEPS)
    assert state(one, STEPS) == state(other, STEPS)
    assert numbers(one) == numbers(other)


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_20_random_moments_it_is_bit_equal(home, runs, whole, number):
    kill = kills()[number]
    assert killed_and_resumed(home, runs, f"kill-{number}", kill) <= 1, kill
    assert_same(home / f"kill-{number}", whole)


@pytest.mark.parametrize("policy", ["skip", "rewind"])
def test_killed_around_a_spike_it_is_bit_equal(home, runs, policy):
    """Before and after the run goes back, and at steps before and after the spike."""
    keys, bad = TINY | {"train.on_spike": policy}, {"29": "nan", "41": "spike"}
    assert runs(spawn.arguments(home, f"{policy}-whole", keys), bad=bad) == 0
    moments = [{"at": "step", "step": step} for step in (24, 32, 44)]
    if policy == "rewind":
        moments += [{"at": "rewind", "after": after} for after in (False, True)]
    for number, kill in enumerate(moments):
        arguments = spawn.arguments(home, f"{policy}-{number}", keys)
        assert runs(arguments, kill, bad) == -9
        assert runs(arguments, bad=bad) == 0
        assert_same(home / f"{policy}-{number}", home / f"{policy}-whole")
        found, whole = (
            json.loads((home / f"{policy}-{name}/result.json").read_text())["spikes"]
            for name in (number, "whole")
        )
        assert found == whole and [spike["step"] for spike in found] in ([29, 41], [29, 39])


def test_control_another_seed_is_another_run(home, runs, whole):
    assert runs(spawn.arguments(home, "other", TINY | {"seed": 1})) == 0
    with pytest.raises(AssertionError):
        assert_same(home / "other", whole)
