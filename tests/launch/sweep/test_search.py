"""Tests of a search in a sweep: what it asks for while trials run, its budget, and going on."""

import json
import math
import os
import signal
import sys
from pathlib import Path

import pytest

from launch.errors import PREEMPTED, BadInput
from launch.runners import RUNNERS
from launch.search import asker
from launch.sweep import expand
from launch.verbs.models import sweep
from tests.launch import fake
from tests.launch.inline import Inline

CONFIG = (
    fake.CONFIG
    + """
from configs.space import choice, integers, log_uniform, search

def get_search(config):
    axes = {"lr": log_uniform(1e-4, 1e-1), "model.depth": [1, 2, 3]}
    return search("tpe", axes, trials=14)
"""
)
COST = 6.0 * 64_000 * 100_000  # FLOPs of one fake trial


def trained(config, workdir, overrides) -> int:
    """A trial at once: its loss has a minimum at a rate of 3e-3, and diverges above 5e-2."""
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir.parent / "runs", "a") as file:
        file.write(f"{workdir.name}\n")
    about = fake.describe(config)
    result = about | {"holdout": False, "seconds": 72.0, "overrides": overrides, "status": "done"}
    result["eval_loss"] = (math.log10(config.lr) - math.log10(3e-3)) ** 2 + 0.01 * config.seed
    if config.lr > 5e-2:
        result |= {"status": "diverged", "tokens_per_second": about["tokens"] / 144}
    (workdir / "result.json").write_text(json.dumps(result))
    return 0 if result["status"] == "done" else 43


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The folder of a search by fake trials that run in this process."""
    for name in ("resolve", "trial_id", "describe"):
        monkeypatch.setattr(expand, name, getattr(fake, name))
    monkeypatch.setattr(expand, "prepare", lambda config: None)
    monkeypatch.setattr(expand, "former_ids", lambda resolved: [])
    monkeypatch.setattr(sweep, "_conclude", lambda *_: None)
    monkeypatch.setitem(RUNNERS, "inline", Inline(trained))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").write_text(CONFIG)
    return tmp_path


def run(*more, folder="s", config="s.py") -> int:
    return sweep.main(
        [f"--config={config}", f"--workdir=runs/{folder}", "--on=inline", "--nofit", *more]
    )


def ran(home, folder="s") -> list[str]:
    return (home / "runs" / folder / "runs").read_text().split()


def recorded(home, folder="s") -> dict:
    return json.loads((home / "runs" / folder / "sweep.json").read_text())


@pytest.mark.parametrize("method", ["tpe", "random", "sobol", "latin_hypercube", "grid"])
def test_a_search_runs_its_trials_once_and_again_does_nothing(home, method, capfd):
    assert run(f"--search={method}", "--trials=9") == 0
    once = ran(home)
    assert len(once) == len(set(once)) == 9 and set(once) == set(recorded(home)["trials"])
    search = recorded(home)["search"]
    assert search["method"] == method and len(search["asked"]) == 9
    assert run(f"--search={method}", "--trials=9") == 0
    assert ran(home) == once and "9 of 9 trials are finished already" in capfd.readouterr().err


def test_tpe_in_two_parts_asks_what_it_asks_in_one(home):
    assert run(folder="whole") == 0
    assert run("--trials=11", folder="parts") == 0
    assert run("--trials=14", folder="parts") == 0
    assert ran(home, "parts") == ran(home, "whole") and len(ran(home, "whole")) == 14
    one, two = (recorded(home, folder)["search"] for folder in ("whole", "parts"))
    assert one == two


def test_a_trial_that_did_not_end_runs_again_before_the_next_is_asked_for(home):
    assert run(folder="whole") == 0
    assert run("--trials=12") == 0
    last = ran(home)[-1]
    (home / "runs/s" / last / "result.json").unlink()
    assert run() == 0
    assert ran(home) == [*ran(home, "whole")[:12], last, *ran(home, "whole")[12:]]


def test_seeds_are_one_configuration_with_their_mean_loss(home, capfd):
    assert run("--trials=3", "--seeds=2") == 0
    asked = recorded(home)["search"]["asked"]
    assert len(ran(home)) == 6 and [len(entry["trials"]) for entry in asked] == [2, 2, 2]
    assert "3 of 3 trials, each with 2 seeds" in capfd.readouterr().err
    got = asker.plan("s.py", {}, home / "runs/s", 2, {"trials": 3}, 1.0)[1]
    losses = [got.came_of(found).loss for found in got.rounds]
    rates = [entry["overrides"]["lr"] for entry in asked]
    assert max(rates) < 5e-2  # none diverges
    expected = [(math.log10(rate) - math.log10(3e-3)) ** 2 + 0.005 for rate in rates]
    assert losses == pytest.approx(expected)


def test_trials_of_get_sweep_run_too(home):
    (home / "both.py").write_text(f"{CONFIG}\ndef get_sweep(c): return [{{'lr': 0.5}}]\n")
    assert run("--trials=3", config="both.py") == 0
    assert len(ran(home)) == 4 and len(recorded(home)["search"]["asked"]) == 3


@pytest.mark.parametrize("method", ["tpe", "random"])
@pytest.mark.parametrize(
    ("budget", "count"), [(f"{5.5 * COST} flops", 5), ("7.2e5 tokens", 7), ("0.13 hours", 6)]
)
def test_a_budget_ends_a_search_before_it_is_exceeded(home, method, budget, count, capfd):
    args = [f"--search={method}", f"--budget={budget}", "--config.tokens=100"]
    assert run(*args) == 0
    trials = [json.loads(f.read_text()) for f in home.glob("runs/s/*/result.json")]
    spent = sum(0.5 if r["status"] == "diverged" else 1 for r in trials)
    if "hours" in budget:  # of 72 s each, also those that diverge
        assert len(trials) == count
    else:
        assert spent + 1 > float(budget.split()[0]) / (COST if "flops" in budget else 1e5) >= spent
    said = capfd.readouterr().err
    assert f"[{len(trials)}/{len(trials)}] " in said
    assert f"search by {method}: {len(trials)} of 14 trials; " in said
    assert "spent, " in said and " left; the next trial needs " in said


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(home):
    assert run(f"--budget={20 * COST} flops", folder="whole") == 0
    assert run(f"--budget={4.5 * COST} flops") == 0
    assert len(ran(home)) < 14
    assert run(f"--budget={20 * COST} flops") == 0
    assert ran(home) == ran(home, "whole") and len(ran(home)) == 14


def test_a_dry_run_lists_the_first_trials_and_writes_nothing(home, capsys):
    assert run("--dry_run", f"--budget={6 * COST} flops", "--json=plan.json") == 0
    said = capsys.readouterr().out
    assert "search by tpe: 1 of 14 trials are listed, about 5 more depend on results" in said
    assert "those listed cost 3.84e10 of 2.3e11 flops" in said
    assert not (home / "runs").exists()
    (first,) = json.loads((home / "plan.json").read_text())["trials"]
    assert run("--trials=1") == 0 and ran(home) == [first["id"]]
    capsys.readouterr()
    assert run("--dry_run") == 0
    assert "search by tpe: 2 of 14 trials are listed, about 12 more" in capsys.readouterr().out
    assert run("--dry_run", "--search=sobol", f"--budget={6 * COST} flops", folder="t") == 0
    assert "search by sobol: 6 of 14 trials; those listed cost 2.3e11" in capsys.readouterr().out


def test_two_processes_ask_for_different_trials_of_one_search(home):
    one, two = (asker.plan("s.py", {}, home / "runs/s", 1, {"trials": 5}, 1.0)[1] for _ in range(2))
    (home / "runs/s").mkdir(parents=True)
    expand.record(expand.Plan("s.py", one.planner.base, (), 0), home / "runs/s")
    asked = [planned.id for turn in (one, two, one, two, two, one) for planned in turn.ask()]
    assert len(asked) == len(set(asked)) == 5
    assert {planned.id for planned in one.planned} == set(asked)


def test_what_another_process_asked_for_and_left_is_trained_at_the_end(home, monkeypatch):
    left = []

    def meanwhile(config, workdir, overrides):
        if not left:
            other = asker.plan("s.py", {}, home / "runs/s", 1, {}, 1.0)[1]
            left.extend(planned.id for planned in other.ask())
        return trained(config, workdir, overrides)

    monkeypatch.setitem(RUNNERS, "inline", Inline(meanwhile))
    assert run() == 0
    assert len(ran(home)) == 14 == len(set(ran(home))) and ran(home)[-1:] == left


def test_a_configuration_that_no_model_can_have_is_passed_over(home, capfd):
    text = CONFIG.replace('"model.depth": [1, 2, 3]', '"model.width": integers(62, 65)')
    (home / "odd.py").write_text(text)
    assert run("--search=random", "--trials=12", config="odd.py") == 0
    asked = recorded(home)["search"]["asked"]
    valid = [entry for entry in asked if entry["overrides"]["model.width"] == 64]
    assert 0 < len(valid) < 12 and len(ran(home)) == len(valid)
    assert all("is not divisible by 8" in e["problem"] for e in asked if e not in valid)
    (home / "odd.py").write_text(text.replace("62, 65", "61, 63"))
    with pytest.raises(BadInput, match=r"none of the first 50 configurations.*not divisible by 8"):
        run("--trials=99", folder="t", config="odd.py")


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_a_search_that_has_tried_everything_ends(home, method, capfd):
    text = CONFIG.replace('"lr": log_uniform(1e-4, 1e-1), ', "")
    (home / "few.py").write_text(text)
    assert run("--trials=99", f"--search={method}", config="few.py") == 0
    assert len(set(ran(home))) == 3
    assert "; the last 50 configurations bring no new trial" in capfd.readouterr().err


def test_an_interrupted_search_asks_no_more_and_goes_on_the_same(home, monkeypatch, capfd):
    def interrupted(config, workdir, overrides):
        if (home / "runs/s/runs").exists() and len(ran(home)) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return trained(config, workdir, overrides)

    assert run(folder="whole") == 0
    monkeypatch.setitem(RUNNERS, "inline", Inline(interrupted))
    assert run() == PREEMPTED
    assert len(ran(home)) == 5 == len(recorded(home)["search"]["asked"])
    monkeypatch.setitem(RUNNERS, "inline", Inline(trained))
    assert run() == 0 and ran(home) == ran(home, "whole")


AXES = '{"lr": log_uniform(1e-4, 1e-1), "model.depth": [1, 2, 3]}'


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (
            "",
            ["--search=tpo"],
            r"search=tpo is unknown; did you mean tpe\? Use one of grid, random",
        ),
        (("model.depth", "model.dept"), [], r"unknown key config.model.dept; did you mean .*depth"),
        (('"lr": log_uniform(1e-4, 1e-1)', '"lr": ["high"]'), [], "config.lr=high is not a float"),
        ((AXES, "{}"), [], "search.axes names no key"),
        (("trials=14", "trials=-1"), [], "search.trials=-1 must be a whole number"),
        (("trials=14", ""), [], r"trials is not given, and tpe does not end .*--trials=40"),
        ("", ["--budget=3 days"], r"search.budget='3 days' is not a budget; write \"1e15 flops\""),
        ("", ["--budget=1 flops"], r"search.budget='1 flops' is below the 3.84e10 flops of the"),
        (
            ('return search("tpe", axes, trials=14)', "return {'axs': axes}"),
            [],
            "search.axs is unkn",
        ),
        (('return search("tpe", axes, trials=14)', "return 3"), [], "get_search returns a int"),
        (
            ("def get_search", "def get_sweep"),
            ["--search=tpe"],
            r"s.py has no get_search\(config\)",
        ),
    ],
)
def test_what_cannot_be_searched_says_why(home, change, flags, message):
    if change:
        assert change[0] in CONFIG
        (home / "s.py").write_text(CONFIG.replace(*change))
    with pytest.raises(BadInput, match=message):
        run(*flags)
    assert not (home / "runs").exists() or not list(home.glob("runs/s/*/result.json"))


def test_a_plain_dict_describes_a_search(home):
    plain = "return dict(method='sobol', axes=axes, trials=5)"
    (home / "s.py").write_text(CONFIG.replace('return search("tpe", axes, trials=14)', plain))
    assert run() == 0 and len(ran(home)) == 5


@pytest.mark.parametrize(
    ("change", "flags", "key"),
    [
        ("", ["--search=random"], "search.method is 'tpe' there and 'random' here"),
        (("trials=14", "trials=14, seed=1"), [], "search.seed is 0 there and 1 here"),
        (("1e-4", "1e-5"), [], "search.axes.lr.low is 0.0001 there and 1e-05 here"),
        (
            ("def get_search", "def get_sweep(c): return [{}]\ndef other"),
            [],
            "holds a search by tpe",
        ),
    ],
)
def test_another_search_in_the_same_folder_is_refused(home, change, flags, key):
    assert run("--trials=2") == 0
    (home / "s.py").write_text(CONFIG.replace(*change) if change else CONFIG)
    with pytest.raises(BadInput, match=key):
        run(*flags)
    assert len(ran(home)) == 2


def test_tpe_without_optuna_is_bad_input(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadInput, match="search=tpe needs Optuna"):
        run()
