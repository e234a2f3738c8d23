"""Tests of `sweep --part`: every fitted trial in one part, costs balanced, trunks kept whole."""

import json
import random
from types import SimpleNamespace

import pytest

from launch.errors import BadInput
from launch.runners import RUNNERS
from launch.sweep import expand
from launch.sweep.expand import Plan
from launch.sweep.static.parts import parse_part, part_of, share_out
from launch.trial import fingerprint
from launch.verbs.models import sweep
from tests.launch.inline import Inline
from tests.launch.sweep.test_sweep import config, listed, ran, results, run  # noqa: F401


def trial(key, cost, trunk="", holdout=False):
    return SimpleNamespace(id=key, cost=cost, trunk=trunk, holdout=holdout)


def random_trials(seed):
    """40 trials, of which eight branch from two trunks, and a held-out one."""
    draw = random.Random(seed)
    trials = [trial(f"t{n:02}", 10 ** draw.uniform(0, 2)) for n in range(32)]
    trials += [trial(f"b{n}", draw.uniform(1, 5), trunk=f"t0{n % 2}") for n in range(8)]
    return [*trials, trial("held", 500.0, holdout=True)]


@pytest.mark.parametrize("parts", [1, 3, 16, 50])
def test_each_fitted_trial_is_in_one_part_with_its_trunk_whatever_the_order(parts):
    for seed in range(20):
        trials = random_trials(seed)
        shares = share_out(trials, parts)
        ids = [planned.id for share in shares for planned in share]
        assert len(shares) == parts and sorted(ids) == sorted(t.id for t in trials if not t.holdout)
        of = {planned.id: n for n, share in enumerate(shares) for planned in share}
        assert all(of[t.id] == of[t.trunk] for t in trials if t.trunk)
        shuffled = random.Random(seed).sample(trials, len(trials))
        again = share_out(shuffled, parts)
        assert [{t.id for t in share} for share in again] == [
            {t.id for t in share} for share in shares
        ]


def test_costs_are_balanced_where_equal_counts_are_not():
    for seed in range(20):
        trials = random_trials(seed)
        loads = [sum(t.cost for t in share) for share in share_out(trials, 4)]
        fitted = [t for t in trials if not t.holdout]
        units = {t.id: t.cost for t in fitted if not t.trunk}
        for branch in fitted:
            if branch.trunk:
                units[branch.trunk] += branch.cost
        assert max(loads) <= sum(loads) / 4 + max(units.values())
        by_count = [sum(t.cost for t in fitted[part::4]) for part in range(4)]
        assert max(loads) < max(by_count)  # the control: every fourth trial, whatever it costs


def test_part_of_keeps_the_order_of_the_plan():
    trials = tuple(random_trials(1))
    kept = part_of(Plan("s.py", None, trials, 0), parse_part("2/3")).trials
    assert list(kept) == [t for t in trials if t in kept] and 0 < len(kept) < len(trials)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5", "1.5/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ValueError, match=f"part={text} is no part of a sweep; write 1/16"):
        parse_part(text)


@pytest.mark.slow
def test_all_parts_and_then_the_whole_train_each_trial_once(config, tmp_path, capfd, monkeypatch):  # noqa: F811
    plan = expand.plan("s.py", {"seconds": "0.01"})
    (held_out,) = [planned.id for planned in plan.trials if planned.holdout]
    monkeypatch.setitem(RUNNERS, "inline", Inline())
    for number in (1, 2, 3):
        before = set(results(tmp_path))
        assert run(config, f"--part={number}/3", "--on=inline", "--config.seconds=0.01") == 0
        assert f"part {number}/3: {len(set(results(tmp_path)) - before)} of 15 fitted trials" in (
            capfd.readouterr().out
        )
        # Every part records the whole sweep, and no part predicts or trains the held-out trial.
        assert len(listed(tmp_path)) == 16 and held_out not in results(tmp_path)
        assert not (tmp_path / "runs/s/prediction.json").exists()
        assert not (tmp_path / "runs/s/report").exists()
    assert len(results(tmp_path)) == 15
    assert run(config, "--on=inline", "--config.seconds=0.01") == 0
    assert ran(tmp_path) == sorted(listed(tmp_path))  # none twice
    record = json.loads((tmp_path / "runs/s/prediction.json").read_text())
    assert record["target"]["run"] == held_out and record["points"]["n"] == 15


def test_a_part_without_trials_ends_at_once(config, tmp_path, capfd, monkeypatch):  # noqa: F811
    monkeypatch.setitem(RUNNERS, "inline", Inline())
    assert run(config, "--part=16/16", "--on=inline") == 0
    assert "part 16/16: 0 of 15 fitted trials" in capfd.readouterr().out
    assert results(tmp_path) == {}


def test_parts_and_what_follows_them_have_the_same_code(config, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setitem(RUNNERS, "inline", Inline())
    now = {"model/a.py": "1"}
    monkeypatch.setattr(fingerprint, "files", lambda: dict(now))
    assert run(config, "--part=15/16", "--on=inline") == 0
    now["model/a.py"] = "2"
    for more in (["--part=16/16"], []):  # other machines with another checkout
        with pytest.raises(BadInput, match=r"trained by other code than this: model/a.py differ"):
            run(config, *more, "--on=inline")
    assert len(results(tmp_path)) == 1
    del now["model/a.py"]
    assert run(config, "--on=inline", "--workdir=runs/alone", "--part=16/16") == 0


@pytest.mark.parametrize("more", ["--stop=asha", "--search=random"])
def test_trials_that_depend_on_the_others_results_have_no_parts(config, more, tmp_path):  # noqa: F811
    file, asks = tmp_path / "s.py", "search('random', {'lr': log_uniform(1e-4, 1e-2)}, 3)"
    head = "from configs.space import log_uniform, search\n"
    search = f"\ndef get_search(config): return {asks}\n" if "search" in more else ""
    file.write_text(head + file.read_text() + search)
    with pytest.raises(BadInput, match=r"part=1/3 trains its trials without the results"):
        sweep.main([f"--config={config}", "--workdir=runs/s", "--part=1/3", more, "--nofit"])
    assert not (tmp_path / "runs/s").exists()
