"""Tests of early stopping: what each rule lets go on, and sweeps that are killed on the way."""

import json
import math
import os
import random
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from launch.errors import DIVERGED, DONE, BadInput
from launch.files import read_json, write_json
from launch.runners import RUNNERS
from launch.runners.tasks import Event
from launch.sweep import expand, stopping
from launch.sweep.expand import Plan
from launch.sweep.stopping import Position
from launch.verbs.models import sweep
from tests.launch.inline import Inline
from train import duration

THIRD = Fraction(1, 3)
LOSSES = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0, "e": 2.5, "f": math.inf}


def allowed(method: str, losses: dict, complete: bool, keep: Fraction = THIRD) -> str:
    return "".join(sorted(stopping.METHODS[method](losses, complete, keep)))


def test_halving_keeps_the_best_third_once_all_have_arrived():
    assert allowed("successive_halving", LOSSES, complete=False) == ""
    assert allowed("successive_halving", LOSSES, complete=True) == "bc"
    assert allowed("successive_halving", LOSSES, complete=True, keep=Fraction(1, 2)) == "bce"
    # 9/3 is exactly 3, which 0.33 is not; one goes on at least.
    nine = {str(i): float(i) for i in range(9)}
    assert allowed("successive_halving", nine, complete=True) == "012"
    assert allowed("successive_halving", nine, complete=True, keep=Fraction("0.33")) == "01"
    assert allowed("successive_halving", {"a": 1.0, "b": 2.0}, complete=True) == "a"


def test_asha_lets_the_best_third_of_those_there_go_on_at_any_time():
    assert allowed("asha", {"a": 3.0, "b": 1.0}, complete=False) == ""
    assert allowed("asha", {"a": 3.0, "b": 1.0, "c": 2.0}, complete=False) == "b"
    assert allowed("asha", LOSSES, complete=False) == allowed("asha", LOSSES, complete=True) == "bc"
    assert allowed("asha", {"a": 3.0, "b": 1.0}, complete=True) == "b"  # otherwise none would end


def test_the_median_rule_stops_what_is_worse_than_the_median_of_the_others():
    # of a: 1, 2, 2.5, 4, inf: 2.5; of e: 1, 2, 3, 4, inf: 3
    assert allowed("median", LOSSES, complete=False) == "bce"
    three = {"a": 3.0, "b": 1.0, "c": 2.0}
    assert allowed("median", three, complete=False) == ""  # too few others: they wait
    assert allowed("median", three, complete=True) == "abc"
    four = three | {"d": 2.0}  # of a: 2; of b: 2; of c: 2, which is as good
    assert allowed("median", four, complete=False) == "bcd"


@pytest.mark.parametrize("method", stopping.METHODS)
def test_what_diverged_goes_nowhere(method):
    lost = dict.fromkeys("abcd", math.inf)
    assert allowed(method, lost, complete=True) == ""


def test_the_rule_of_the_docs_keeps_what_is_near_the_best():
    page = (Path(__file__).parents[3] / "docs" / "early-stopping.md").read_text()
    (source,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(source, vars(stopping), names)
    losses = {"a": 1.0, "b": 1.04, "c": 1.06, "d": math.inf}
    assert names["_near_best"](losses, True, THIRD) == {"a", "b"}
    assert names["_near_best"](losses, False, THIRD) == set()


def at(*losses: float, heading: int | None = None, state: str = "") -> Position:
    arrived = len(losses)
    heading = arrived - 1 if heading is None else heading
    return Position((*losses, math.nan)[:2], arrived, max(0, heading), state, True)


def jobs(method: str, positions: dict, keep: str = "1/2") -> list[tuple[str, int]]:
    rule = stopping.stopping(method, "1 steps,2 steps", "" if method == "median" else keep)
    return stopping.next_trials(rule, positions, dict.fromkeys(positions, 2))


def test_the_highest_rung_goes_first_then_trials_on_their_way_then_new_ones():
    here = {"new": Position(), "begun": Position(begun=True)}
    here |= {"low": at(2.0), "low2": at(3.0), "high": at(1.0, 1.0), "high2": at(1.5, 2.0)}
    here |= {"way": at(1.2, heading=1)}
    expected = [("high", 2), ("low", 1), ("way", 1), ("begun", 0), ("new", 0)]
    found = jobs("asha", here)
    assert found == [job for job in expected if job != ("low", 1)]  # 2 of 5: high2 and high went on
    here["low"] = at(0.9)
    assert jobs("asha", here | {"low3": at(4.0)}) == expected
    assert jobs("successive_halving", here) == [("way", 1), ("begun", 0), ("new", 0)]


def test_a_rung_is_complete_once_nothing_below_can_come():
    here = {"a": at(1.0, 1.0), "b": at(2.0), "c": at(3.0), "d": at(4.0)}
    assert jobs("successive_halving", here) == [("b", 1)]  # the second of four
    here["b"] = at(2.0, heading=1)
    assert jobs("successive_halving", here) == [("b", 1)]  # on its way, so a waits for it
    here["b"] = at(2.0, heading=1, state="lost")
    assert jobs("successive_halving", here) == [("a", 2)]
    here["a"] = at(1.0, 1.0, heading=2, state="done")
    assert jobs("successive_halving", here) == []


CONFIG = """
from configs import base

def get_config(arg=None):
    config = base.get_config()
    config.name = "t"
    config.model.update(n_layers=1, d_model=16, n_heads=2, context_length=16)
    config.train.update(batch_size=8, duration="90 steps")
    config.eval.update(sequences=16, batch_size=8, every="20 steps")
    config.data.corpora = ("text.txt",)
    config.schedule.update(name="cosine")
    return config

def get_sweep(config):
    return [{"seed": seed} for seed in range(9)]
"""
RUNGS = "--rungs=10 steps,30 steps"


@pytest.fixture(scope="module")
def planned(text_folder) -> Plan:
    (text_folder / "s.py").write_text(CONFIG.replace("text.txt", f"{text_folder}/text.txt"))
    return expand.plan(f"{text_folder}/s.py", {"data.cache": f"{text_folder}/cache"})


@pytest.fixture
def home(planned, tmp_path, monkeypatch) -> Path:
    """A folder for sweeps of nine fake trials, planned once."""
    monkeypatch.setattr(sweep, "plan", lambda *_: (planned, None))
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Killed(Exception):
    """What ends a sweep in the middle of a trial."""


def loss(seed: int, step: int) -> float:
    """The curve of a trial; from the best, seeds 0, 2, 4, 6, 8, 1, 3, 5, 7."""
    return 5 + 0.1 * (seed * 5 % 9) - 0.01 * step


class Trials:
    """Fake trials that write what real ones do; the one of call number `kill_at` is cut off after
    `kill_after` of its files."""

    def __init__(self, kill_at: int = -1, kill_after: int = 0, diverge: int = -1):
        self.kill_at, self.kill_after, self.diverge = kill_at, kill_after, diverge
        self.calls = []

    def __call__(self, config, workdir: Path, overrides: dict) -> int:
        config.lock()
        stop_at, total = config.checkpoint.stop_at, duration.steps(config.train.duration)
        end = duration.steps(stop_at) if stop_at else total
        killed = len(self.calls) == self.kill_at
        self.calls.append((config.seed, end))
        if killed and self.kill_after == 0:
            raise Killed
        write_json(workdir / "config.json", json.loads(config.to_json()))
        if killed and self.kill_after == 1:
            raise Killed
        rows = [{"step": s, "eval_loss": loss(config.seed, s)} for s in (*range(20, end, 20), end)]
        before = workdir / "metrics.jsonl"
        old = (
            [json.loads(line) for line in before.read_text().splitlines()]
            if before.exists()
            else []
        )
        rows = [row for row in old if row["step"] < end and row["step"] % 20] + rows
        rows.sort(key=lambda row: row["step"])
        before.write_text("".join(json.dumps(row) + "\n" for row in rows))
        if killed:
            raise Killed
        diverged = config.seed == self.diverge
        status = "diverged" if diverged else "done" if end == total else "stopped"
        result = {"status": status, "steps": end, "tokens": 128 * end}
        result |= {"holdout": False, "seconds": 0.0}
        result["eval_loss"] = rows[-1]["eval_loss"]
        write_json(workdir / "result.json", result | {"overrides": overrides})
        return DIVERGED if diverged else DONE


class Shuffled(Inline):
    """Runs three tasks at a time, which end in an order that `rng` chooses."""

    def __init__(self, instead, rng: random.Random):
        super().__init__(instead)
        self.rng = rng

    def slots(self, tasks, resources):
        return super().slots(tasks, resources) * 3

    def run(self, function, tasks, resources, interrupt):
        source, active = iter(tasks), []
        while True:
            while len(active) < 3 and (task := next(source, None)):
                active.append(task)
            if not active:
                return
            task = active.pop(self.rng.randrange(len(active)))
            yield Event("finished", task.key, 1, self.instead(*task.args))


def run(monkeypatch, workdir: str, *flags: str, runner=None, trials=None) -> tuple[int, list]:
    """(the exit code of the sweep, the seed and last step of each trial that it trained)."""
    trials = trials or Trials()
    monkeypatch.setitem(RUNNERS, "local", runner or Inline(trials))
    given = ["--config=s.py", f"--workdir={workdir}", "--nofit", *flags]
    return sweep.main(given), trials.calls


def table(workdir: str) -> list[dict]:
    return read_json(Path(workdir) / "stopping.json")["table"]


def statuses(workdir: str) -> dict[int, str]:
    results = [read_json(file) for file in Path(workdir).glob("*/result.json")]
    return {result["overrides"]["seed"]: result["status"] for result in results}


def test_a_sweep_climbs_from_rung_to_rung(home, monkeypatch, capfd):
    code, calls = run(monkeypatch, "sh", "--stop=successive_halving", RUNGS)
    assert code == 0
    assert sorted(calls[:9]) == [(seed, 10) for seed in range(9)]
    assert calls[9:] == [(0, 30), (2, 30), (4, 30), (0, 90)]
    assert Counter(statuses("sh").values()) == {"stopped": 8, "done": 1}
    shown = capfd.readouterr().err
    assert "successive_halving: " in shown and "1 done, 8 stopped" in shown
    assert "rung 30 steps: 1 of 3 trials went on" in shown
    by = [read_json(f).get("stopped_by") for f in Path("sh").glob("*/result.json")]
    of_two = [b for b in by if b and b["rung"] == "30 steps"]
    assert sorted((b["place"], b["of"], b["method"]) for b in of_two) == [
        (2, 3, "successive_halving"),
        (3, 3, "successive_halving"),
    ]
    # 9 trials to 10 steps, 3 to 30, one to 90
    assert f"{(90 + 60 + 60) / 810:.0%}" in shown


RULES = [["--stop=successive_halving"], ["--stop=asha"], ["--stop=median"]]


@pytest.mark.parametrize("rule", RULES)
def test_a_killed_sweep_makes_the_same_decisions_when_it_is_run_again(home, monkeypatch, rule):
    _, whole = run(monkeypatch, "whole", *rule, RUNGS)
    for kill_at in (2, 6, len(whole) - 2):
        for kill_after in range(3):  # nothing, config.json, metrics.jsonl of the trial are written
            folder = f"cut-{kill_at}-{kill_after}"
            cut = Trials(kill_at, kill_after)
            with pytest.raises(Killed):
                run(monkeypatch, folder, *rule, RUNGS, trials=cut)
            with pytest.raises(BadInput, match="has trials that were stopped at 10 steps,30 steps"):
                run(monkeypatch, folder, *rule, "--rungs=20 steps")
            _, rest = run(monkeypatch, folder, *rule, RUNGS)
            assert [*cut.calls[:-1], *rest] == whole
            assert table(folder) == table("whole")
    assert run(monkeypatch, "whole", *rule, RUNGS)[1] == []


def test_halving_keeps_the_same_trials_in_whatever_order_they_end(home, monkeypatch):
    run(monkeypatch, "one", "--stop=successive_halving", RUNGS)
    for seed in range(3):
        runner = Shuffled(Trials(), random.Random(seed))
        run(monkeypatch, f"s{seed}", "--stop=successive_halving", RUNGS, runner=runner)
        assert table(f"s{seed}") == table("one")


def test_asha_keeps_its_promotions_when_it_is_killed(home, monkeypatch):
    """Other trials may arrive between, but none that went on is taken back."""
    for seed in range(4):
        rng, folder = random.Random(seed), f"s{seed}"
        cut = Trials(kill_at=rng.randrange(4, 9), kill_after=rng.randrange(3))
        with pytest.raises(Killed):
            run(monkeypatch, folder, "--stop=asha", RUNGS, runner=Shuffled(cut, rng))
        went_on = {s for s, step in cut.calls[:-1] if step > 10}
        runner = Shuffled(Trials(), rng)
        run(monkeypatch, folder, "--stop=asha", RUNGS, runner=runner)
        after = {s for s, step in cut.calls[:-1] + runner.instead.calls if step > 10}
        assert went_on <= after and 0 in after  # the best always goes on
        ended = table(folder)
        assert len(ended[0]["trials"]) == 9
        assert 3 <= len(ended[0]["went_on"]) <= 5
        assert {"done"} <= set(statuses(folder).values())


def test_without_the_flag_the_same_sweep_trains_the_stopped_trials_to_their_end(home, monkeypatch):
    run(monkeypatch, "s", "--stop=asha", RUNGS)
    left = [seed for seed, status in statuses("s").items() if status == "stopped"]
    code, calls = run(monkeypatch, "s")
    assert code == 0 and sorted(calls) == [(seed, 90) for seed in sorted(left)] and len(left) > 4
    assert set(statuses("s").values()) == {"done"}


def test_a_diverged_trial_counts_as_the_worst(home, monkeypatch):
    _, calls = run(monkeypatch, "s", "--stop=successive_halving", RUNGS, trials=Trials(diverge=0))
    assert calls[9:] == [(2, 30), (4, 30), (6, 30), (2, 90)]  # a third of all nine
    assert table("s")[0]["trials"][-1]["loss"] is None
    assert statuses("s")[0] == "diverged"


SEARCH = """
from configs.space import log_uniform, search

def get_search(config):
    return search("random", {"optimizer.learning_rate": log_uniform(1e-3, 1e-1)})
"""


def test_a_search_with_rungs_keeps_its_budget(text_folder, planned, tmp_path, monkeypatch, capfd):
    text = CONFIG.replace("text.txt", f"{text_folder}/text.txt").partition("def get_sweep")[0]
    (tmp_path / "s.py").write_text(text + SEARCH)
    monkeypatch.chdir(tmp_path)
    cost = planned.trials[0].about["flops"]["6nd"]
    flags = ["--stop=asha", RUNGS, f"--budget={5 * cost} flops"]
    flags.append(f"--config.data.cache={text_folder}/cache")
    code, calls = run(monkeypatch, "s", *flags)
    steps = [read_json(file)["steps"] for file in Path("s").glob("*/result.json")]
    trained = sum(steps) / 90  # in whole trials
    assert code == 0 and len(steps) > 8 and 90 in steps and len(calls) > len(steps)
    assert 4 < trained <= 5
    assert f"{trained * cost:.3g}".replace("e+0", "e") in capfd.readouterr().err
    with pytest.raises(BadInput, match=r"the search varies schedule\.final"):
        (tmp_path / "t.py").write_text(
            text + SEARCH.replace("optimizer.learning_rate", "schedule.final")
        )
        run(monkeypatch, "t", *flags, "--config=t.py")
