import itertools
import math
import sys

import numpy as np
import pytest
from scipy.stats import qmc

from configs.space import choice, integers, log_uniform, sample, search, uniform
from launch.search.asked import Asked
from launch.sweep.search import SEARCHES

AXES = {
    "lr": log_uniform(1e-4, 1e-1),
    "wd": uniform(0.0, 0.3),
    "k": integers(2, 4),
    "c": choice(["a", "b"]),
    "f": 7,
}


def ask(method, axes=AXES, trials=0, seed=0, asked=()):
    return SEARCHES[method].ask(search(method, axes, trials, seed), asked)


def walk(method, loss, trials, seed=0, axes=None):
    """The configurations of a search, asked for one by one, and their losses."""
    axes = axes or {"lr": log_uniform(1e-4, 1e-1), "wd": uniform(0.0, 0.3)}
    asked = []
    while new := ask(method, axes, trials, seed, asked):
        asked.append(Asked(new[0], "done", loss(new[0])))
    return asked


def bowl(trial):
    """A quadratic in the logarithm of the rate with its minimum of 0 at 3e-3."""
    return (math.log10(trial["lr"]) - math.log10(3e-3)) ** 2 + (trial["wd"] - 0.1) ** 2


@pytest.mark.parametrize("method", ["random", "sobol", "latin_hypercube"])
def test_a_design_is_in_its_ranges_and_the_same_for_the_same_seed(method):
    trials = ask(method, trials=32)
    assert len(trials) == 32 and trials == ask(method, trials=32)
    assert trials != ask(method, trials=32, seed=1)
    assert all(1e-4 <= t["lr"] <= 1e-1 and 0 <= t["wd"] <= 0.3 and t["f"] == 7 for t in trials)
    assert {t["k"] for t in trials} == {2, 3, 4} and {t["c"] for t in trials} == {"a", "b"}
    assert all(t["lr"] == float(f"{t['lr']:.4g}") for t in trials)


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_more_trials_add_to_a_design(method):
    whole = ask(method, trials=20)
    assert ask(method, trials=9) == whole[:9]
    assert ask(method, trials=20, asked=[Asked(t) for t in whole[:9]]) == whole[9:]
    # A search that only its budget ends asks for one more each time.
    assert ask(method, asked=[Asked(t) for t in whole[:9]]) == whole[9:10]


def test_a_latin_hypercube_refuses_another_number_of_trials():
    first = [Asked(t) for t in ask("latin_hypercube", trials=8)]
    assert ask("latin_hypercube", trials=8, asked=first[:3])[-1] == first[-1].overrides
    with pytest.raises(ValueError, match=r"search.trials=9: latin_hypercube has other points"):
        ask("latin_hypercube", trials=9, asked=first)
    with pytest.raises(ValueError, match="add --trials=32"):
        ask("latin_hypercube")


def test_random_is_what_sample_draws_to_four_digits():
    drawn = sample(AXES, n=5, seed=3)
    found = ask("random", trials=5, seed=3)
    assert [t["lr"] for t in found] == [float(f"{t['lr']:.4g}") for t in drawn]
    assert [(t["k"], t["c"]) for t in found] == [(t["k"], t["c"]) for t in drawn]


def test_sobol_fills_the_square_more_evenly_than_chance_and_latin_hypercube_each_part():
    axes = {"x": uniform(0, 1), "y": uniform(0, 1)}
    points = {
        method: np.array([list(t.values()) for t in ask(method, axes, 64)])
        for method in ("random", "sobol", "latin_hypercube")
    }
    uneven = {method: qmc.discrepancy(found) for method, found in points.items()}
    assert uneven["sobol"] < 0.2 * uneven["random"]
    parts = {m: [len(set((64 * x).astype(int))) for x in found.T] for m, found in points.items()}
    assert parts["latin_hypercube"] == [64, 64] and max(parts["random"]) < 60


def test_a_grid_cuts_ranges_into_as_many_levels_as_the_trials_allow():
    axes = {"lr": log_uniform(1e-4, 1e-1), "c": [1, 2], "k": integers(2, 4)}
    lr = [1e-4, 3.162e-3, 1e-1]
    three = [dict(zip(axes, row, strict=True)) for row in itertools.product(lr, [1, 2], [2, 3, 4])]
    assert ask("grid", axes, 18) == three == ask("grid", axes, 23)
    assert len(ask("grid", axes, 24)) == 24  # whole numbers have no fourth level
    with pytest.raises(ValueError, match=r"search.trials=7 is below the 8 combinations"):
        ask("grid", axes, 7)
    with pytest.raises(ValueError, match=r"lr is a range.*add --trials=25"):
        ask("grid", axes)
    assert len(ask("grid", {"a": [1, 2], "b": [3, 4, 5]})) == 6
    assert len(ask("grid", {"k": integers(1, 3)}, 100)) == 3


def test_tpe_comes_nearer_to_a_planted_optimum_than_chance():
    best = {
        method: np.mean([min(a.loss for a in walk(method, bowl, 40, seed)) for seed in range(4)])
        for method in ("tpe", "random")
    }
    assert best["tpe"] < 0.3 * best["random"]


def test_tpe_is_the_same_again_and_goes_on_as_if_it_had_not_stopped():
    whole = walk("tpe", bowl, 16)
    assert whole == walk("tpe", bowl, 16) != walk("tpe", bowl, 16, seed=1)
    axes = {"lr": log_uniform(1e-4, 1e-1), "wd": uniform(0.0, 0.3)}
    assert ask("tpe", axes, 16, asked=whole[:12]) == [whole[12].overrides]
    assert ask("tpe", axes, 16, asked=whole) == []
    # It learns: with other results it asks for something else.
    other = [Asked(a.overrides, "done", -a.loss) for a in whole[:12]]
    assert ask("tpe", axes, 16, asked=other) != [whole[12].overrides]


def test_tpe_avoids_what_diverged_and_what_runs_and_reads_every_status():
    axes = {"lr": log_uniform(1e-4, 1e-1)}
    rates = np.geomspace(1e-4, 1e-1, 16)
    done = [
        Asked({"lr": float(r)}, *(("diverged", None) if r > 5e-3 else ("done", 1 - r)))
        for r in rates
    ]
    after = [SEARCHES["tpe"].ask(search("tpe", axes, 99, s), done)[0]["lr"] for s in range(12)]
    assert np.median(after) < 5e-3
    swapped = [Asked(a.overrides, "done", 1 - a.overrides["lr"]) for a in done]
    higher = [SEARCHES["tpe"].ask(search("tpe", axes, 99, s), swapped)[0]["lr"] for s in range(12)]
    assert np.median(higher) > 2e-2
    rest = [Asked({"lr": 0.01}, status, 2.0, 100) for status in ("stopped", "failed", "invalid")]
    assert len(ask("tpe", axes, 99, asked=[*done, *rest, Asked({"lr": 0.02})])) == 1


def test_tpe_takes_lists_whole_numbers_and_values_read_from_json():
    axes = AXES | {"shape": [(1, 2), (3, 4)]}
    first = ask("tpe", axes, 9)[0]
    assert first["shape"] in axes["shape"] and first["k"] in (2, 3, 4) and first["f"] == 7
    as_json = Asked(first | {"shape": list(first["shape"])}, "done", 1.0)
    assert ask("tpe", axes, 9, asked=[as_json]) == ask(
        "tpe", axes, 9, asked=[Asked(first, "done", 1.0)]
    )


def test_tpe_without_optuna_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"search=tpe needs Optuna: pip install .*\[search\]"):
        ask("tpe", trials=3)
    assert len(ask("sobol", trials=3)) == 3
