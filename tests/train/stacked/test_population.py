"""Tests that stacked trials give the same results as separate trials."""

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import base
from data.buckets.lease import LostLock, Unlocked
from launch.trial.resolve import prepare, resolve
from train import metrics
from train.checkpoint import restore_params
from train.loop import Run
from train.record import Record
from train.stacked.population import Member, Population
from train.watch import Stop, Watchdog

# No attention biases: key biases do not change the softmax, so their gradient is rounding error,
# which Adam would scale up. For the same reason epsilon is above the rounding error of gradients.
TINY = {
    "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
    "model.attention_bias": False, "model.dropout": 0.1, "train.batch_size": 4,
    "optimizer.eps": 1e-6, "train.duration": "40 steps", "train.chunk": 8, "eval.sequences": 16,
    "eval.batch_size": 8, "eval.every": "20 steps", "log.tensorboard": False,
    "log.every": "5 steps", "checkpoint.every": "20 steps", "checkpoint.keep_last": 1,
    "checkpoint.keep_best": 0,
}  # fmt: skip
TRIALS = [
    {
        "seed": i,
        "optimizer.learning_rate": 1e-3 * (1 + i % 5),
        "optimizer.b1": (0.9, 0.8)[i % 2],
        "optimizer.b2": (0.95, 0.99, 0.999)[i % 3],
        "optimizer.weight_decay": 0.05 * i,
        "schedule.warmup": f"{2 + i} steps",
    }
    for i in range(16)
]
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    return text_folder


def sized(home: Path, **changes):
    keys = {"data.corpora": (f"{home}/text.txt",), "data.cache": f"{home}/cache"} | TINY | changes
    made = base.get_config()
    made.update_from_flattened_dict(keys)
    dataset = prepare(made)
    found = resolve(made, dataset)
    return found, dataset.for_run(found)


def together(home: Path, trials: dict[str, dict], memory: int | None = None, **more) -> Population:
    """A population of the named trials, each in the folder of its name."""
    configs = {name: sized(home, **changes, **more) for name, changes in trials.items()}
    members = []
    for name, (config, _) in configs.items():
        (home / name).mkdir(parents=True, exist_ok=True)
        members.append(Member(config, home / name, lambda text: None))
    _, dataset = configs[next(iter(configs))]
    return Population(members, dataset, memory=memory)


def separate(home: Path, name: str, **changes) -> Path:
    """The same trial as a separate run, trained only once per name."""
    config, dataset = sized(home, **changes)
    if not (home / name).exists():
        (home / name).mkdir()
        assert Run(config, dataset, home / name, lambda text: None).train(Stop()) == "done"
    return home / name


@functools.cache
def parameters(run: Path) -> list[np.ndarray]:
    """The last parameters of a run that has ended."""
    return jax.tree.leaves(restore_params(run / "checkpoints")[0])


def apart(one: Path, other: Path) -> float:
    """The largest relative difference between the metrics or parameters of two runs."""
    rows = [metrics.read(run / "metrics.jsonl") for run in (one, other)]
    assert [sorted(row) for row in rows[0]] == [sorted(row) for row in rows[1]]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    keys = ("loss", "eval_loss", "bits_per_byte", "grad_norm", "learning_rate")
    pairs = [(a[k], b[k]) for a, b in zip(*rows, strict=True) for k in keys if k in a]
    a, b = parameters(one), parameters(other)
    norm = np.linalg.norm
    differences = [norm(x - y) / norm(y) for x, y in zip(a, b, strict=True)]
    return max([abs(x / y - 1) for x, y in pairs] + differences)


def files(run: Path) -> set[str]:
    """The files of a run, except Orbax's data files, whose names are random."""
    found = (path.relative_to(run) for path in run.rglob("*"))
    return {str(path) for path in found if path.parent.name != "d"}


@pytest.mark.parametrize("count", [3, pytest.param(16, marks=pytest.mark.slow)])
def test_stacked_trials_are_separate_ones(home, count):
    trials = {f"stacked-{count}-{i}": TRIALS[i] for i in range(count)}
    assert together(home, trials).train(Stop()) == ["done"] * count
    for i, (name, changes) in enumerate(trials.items()):
        alone = separate(home, f"alone-{i}", **changes)
        assert apart(home / name, alone) < 1e-6
        assert files(home / name) == files(alone)
    others = (home / f"alone-{i}" for i in range(count))
    assert min(apart(a, b) for a, b in itertools.pairwise(others)) > 1e-3  # the control


def test_control_a_slightly_different_beta_is_another_trial(home):
    near = TRIALS[0] | {"optimizer.b2": TRIALS[0]["optimizer.b2"] + 1e-5}
    alone = separate(home, "alone-0", **TRIALS[0])
    assert apart(separate(home, "near", **near), alone) > 1e-6


def test_a_trial_that_diverges_leaves_its_neighbours_alone(home):
    wild = TRIALS[2] | {"optimizer.learning_rate": 1e30, "optimizer.clip_norm": 0.0}
    trials = {"calm-0": TRIALS[0], "wild": wild, "calm-1": TRIALS[1]}
    assert together(home, trials).train(Stop()) == ["done", "diverged", "done"]
    for i in range(2):
        alone = separate(home, f"alone-{i}", **TRIALS[i])
        assert apart(home / f"calm-{i}", alone) < 1e-6
        assert not (home / f"calm-{i}/diverged").exists()
    about = json.loads((home / "wild/diverged/diverged.json").read_text())
    assert "not finite" in about["fault"] and about["seed"] == 2
    evidence = restore_params(home / "wild/diverged")[0]
    assert not np.isfinite(evidence["embed"]["embedding"]).all()
    assert "diverged" in metrics.read(home / "wild/metrics.jsonl")[-1]


@pytest.mark.slow
def test_stopped_trials_go_on_together_or_alone_from_different_steps(home, monkeypatch):
    stop, after = Stop(), Record.after_chunk

    def then_stop(record, *args):
        stop.requested = stop.requested or record.step >= 10
        return after(record, *args)

    trials = {f"stopped-{i}": TRIALS[i] for i in range(3)}
    with monkeypatch.context() as patched:
        patched.setattr(Record, "after_chunk", then_stop)
        assert together(home, trials).train(stop) == ["preempted"] * 3
    saved = [(home / name / "checkpoints/15/manifest.json").exists() for name in trials]
    assert saved == [True] * 3
    shutil.copytree(home / "stopped-0", home / "apart")
    config, dataset = sized(home, **TRIALS[0])
    run = Run(config, dataset, home / "apart", lambda text: None)
    assert run.record.step == 15 and run.train(Stop()) == "done"
    shutil.rmtree(home / "stopped-1")  # starts over beside trials that are at step 15
    population = together(home, trials)
    assert [record.step for record in population.records] == [15, 0, 15]
    assert population.train(Stop()) == ["done"] * 3
    for name, i in (("apart", 0), ("stopped-0", 0), ("stopped-1", 1), ("stopped-2", 2)):
        assert apart(home / name, separate(home, f"alone-{i}", **TRIALS[i])) < 1e-6


@pytest.mark.slow
def test_what_does_not_fit_into_memory_waits(home, monkeypatch):
    trials = {f"waits-{i}": TRIALS[i] for i in range(3)}
    population, sizes = together(home, trials, memory=1), []
    compile_ = Population._compile

    def noted(self, trials):
        found = compile_(self, trials)
        sizes.append((trials, found[0]))
        return found

    monkeypatch.setattr(Population, "_compile", noted)
    assert population.train(Stop()) == ["done"] * 3
    assert sizes == [(3, 1), (2, 1), (1, 1)]
    for i in range(3):
        alone = separate(home, f"alone-{i}", **TRIALS[i])
        assert apart(home / f"waits-{i}", alone) < 1e-6


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("model.d_model", 32, "config.model.d_ff is 64 in one trial and 128 in another"),
        ("train.duration", "41 steps", "config.train.duration is '40 steps' in one trial and"),
        ("optimizer.name", "lion", "may differ between stacked trials; train them separately"),
        ("checkpoint.every", "10 steps", "config.checkpoint.every"),
    ],
)
def test_trials_of_other_shapes_are_refused(home, key, value, message):
    with pytest.raises(ValueError, match=message):
        together(home, {"refused-0": {}, "refused-1": {key: value}})


EIGHT = """
import sys
from pathlib import Path
from tests.train.stacked import test_population as here
from train.watch import Stop

home = Path(sys.argv[1])
trials = {f"eight-{i}": here.TRIALS[i] for i in range(10)}
population = here.together(home, trials, **{"train.duration": "20 steps"})
lanes, train, score = population._compile(10)
assert lanes == 16 and population.mesh.size == 8, population.mesh
text = train.as_text() + score.as_text()
assert not [word for word in ("all-reduce", "all-gather", "permute(") if word in text]
assert population.train(Stop()) == ["done"] * 10
"""


@pytest.mark.slow
def test_over_eight_devices_lanes_are_spread_and_nothing_is_sent(home):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, str(home)],
        cwd=ROOT,
        env=os.environ | flags,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for i in (0, 9):
        alone = separate(home, f"ten-{i}", **TRIALS[i], **{"train.duration": "20 steps"})
        assert apart(home / f"eight-{i}", alone) < 1e-6


class Taken(Unlocked):
    """The lock of a folder, which another process has taken when the run asks for the nth time."""

    def __init__(self, asked: int):
        self.left = asked

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise LostLock("its folder was taken over by process 7 on elsewhere")

    confirm = check


def test_a_trial_whose_lock_is_lost_ends_alone(home):
    """In the middle of training, and when its record is closed."""
    said, members = [], []
    for i, asked in enumerate((10**6, 2, 10**6)):
        config, dataset = sized(home, **TRIALS[i])
        (home / f"lost-{i}").mkdir()
        members.append(Member(config, home / f"lost-{i}", said.append, lease=Taken(asked)))
    population = Population(members, dataset)
    population.records[2].log.close = lambda done: Taken(0).check()
    assert population.train(Stop()) == ["done", "lost", "lost"]
    steps = [record.step for record in population.records]
    assert steps[0] == steps[2] == 40 > steps[1] > 0
    assert len([line for line in said if "taken over by process 7" in line]) == 2
    alone = separate(home, "lost-control", **TRIALS[0])
    assert apart(home / "lost-0", alone) < 1e-4
    seconds = json.loads((home / "lost-0/ledger.json").read_text())
    assert seconds["step"] == 40  # it was written at the end


@pytest.mark.slow
def test_stacked_trials_say_that_they_wait_for_data(home, monkeypatch):
    """The watchdog learns whether they wait, around each chunk."""
    told = []
    monkeypatch.setattr(Watchdog, "waits", lambda self, for_data: told.append(for_data))
    population = together(home, {"told-0": TRIALS[0], "told-1": TRIALS[1]})
    assert population.train(Stop()) == ["done", "done"]
    assert told == [True, False] * (len(told) // 2) + [True] * (len(told) % 2) and len(told) > 8
