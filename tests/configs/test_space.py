import math
import statistics

import numpy as np
import pytest

from configs.space import (
    chain,
    choice,
    grid,
    integers,
    log_uniform,
    product,
    sample,
    seeds,
    uniform,
    zip_,
)


def test_grid_is_every_combination_last_key_fastest():
    assert grid({"a.x": [1, 2], "b": ["u", "v"]}) == [
        {"a.x": 1, "b": "u"},
        {"a.x": 1, "b": "v"},
        {"a.x": 2, "b": "u"},
        {"a.x": 2, "b": "v"},
    ]
    assert grid({}) == [{}]


def test_zip_moves_keys_together_and_refuses_unequal_lengths():
    assert zip_({"a": [1, 2], "b": [3, 4]}) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    with pytest.raises(ValueError, match=r"'a': 2, 'b': 1"):
        zip_({"a": [1, 2], "b": [3]})


def test_chain_and_product():
    sizes = zip_({"d": [1, 2], "l": [3, 4]})
    assert chain(sizes, grid({"d": [9]})) == [*sizes, {"d": 9}]
    assert product(sizes, grid({"lr": [0.1, 0.2]})) == [
        {"d": 1, "l": 3, "lr": 0.1},
        {"d": 1, "l": 3, "lr": 0.2},
        {"d": 2, "l": 4, "lr": 0.1},
        {"d": 2, "l": 4, "lr": 0.2},
    ]
    with pytest.raises(ValueError, match="product: d is set by two"):
        product(sizes, grid({"d": [1]}))


def test_chain_copies_so_that_trials_share_no_dict():
    space = grid({"a": [1]})
    chained = chain(space, space)
    chained[0]["a"] = 2
    assert chained[1] == {"a": 1} and space == [{"a": 1}]


AXES = {"lr": log_uniform(1e-4, 1e-2), "wd": uniform(0, 0.3), "k": integers(2, 4), "c": 7}


def test_sample_is_the_same_every_time_and_another_for_another_seed():
    assert sample(AXES, n=20, seed=1) == sample(AXES, n=20, seed=1)
    assert sample(AXES, n=20, seed=1) != sample(AXES, n=20, seed=2)


def test_sample_known_values():
    # Pinned, so that an upgrade does not change the trials of a sweep.
    (first,) = sample({"lr": log_uniform(1e-4, 1e-2)}, n=1, seed=0)
    assert first["lr"] == pytest.approx(0.00019324045801941126, rel=1e-12)


def test_more_draws_and_more_keys_keep_the_ones_that_were_there():
    few = sample(AXES, n=5, seed=3)
    assert sample(AXES, n=9, seed=3)[:5] == few
    wider = sample({"new": uniform(0, 1), **AXES}, n=5, seed=3)
    assert [{key: row[key] for key in AXES} for row in wider] == few


def test_sample_ranges_and_types():
    rows = sample(AXES | {"pick": choice(["a", "b"])}, n=500, seed=0)
    assert all(1e-4 <= row["lr"] <= 1e-2 and 0 <= row["wd"] <= 0.3 for row in rows)
    assert {row["k"] for row in rows} == {2, 3, 4}
    assert {row["pick"] for row in rows} == {"a", "b"} and {row["c"] for row in rows} == {7}
    # The median of a log-uniform is the geometric mean; the median of a uniform would be 5e-3.
    middle = statistics.median(math.log10(row["lr"]) for row in rows)
    assert middle == pytest.approx(-3, abs=0.1)


def test_axes_are_any_ordered_iterable_and_numbers_may_be_numpys():
    rates = np.array([1e-3, 3e-3])
    assert grid({"lr": rates, "k": range(2)}) == grid({"lr": [1e-3, 3e-3], "k": [0, 1]})
    assert zip_({"a": (i for i in (1, 2)), "b": np.arange(2)}) == zip_({"a": [1, 2], "b": [0, 1]})
    assert chain(d for d in [{"a": 1}]) == [{"a": 1}]
    draws = {"k": integers(np.int64(2), np.int32(4)), "c": choice(np.array([5, 6]))}
    assert sample(draws, n=np.int64(9), seed=np.int64(3)) == sample(
        {"k": integers(2, 4), "c": choice([5, 6])}, n=9, seed=3
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: log_uniform(1e-2, 1e-4), "log_uniform: low=0.01 must be below high=0.0001"),
        (lambda: log_uniform(0, 1), "low=0 must be above 0"),
        (lambda: uniform(1, 1), "low=1 must be below high=1"),
        (lambda: uniform(0, math.inf), "both finite"),
        (lambda: integers(1.5, 3), "whole numbers"),
        (lambda: choice([]), "at least one value"),
        (lambda: choice("abc"), "needs a list"),
        (lambda: grid({"a": []}), "grid: a needs a list"),
        (lambda: grid({"a": 3}), "grid: a needs a list"),
        (lambda: grid({"a": {"x", "y"}}), "grid: a needs a list"),
        (lambda: grid({"a": {"x": 1}}), "grid: a needs a list"),
        (lambda: choice(iter(())), "at least one value"),
        (lambda: zip_({"a": "xy"}), "zip_: a needs a list"),
        (lambda: sample({}, n=0, seed=0), "n=0"),
        (lambda: sample({}, n=2.5, seed=0), "n=2.5"),
    ],
)
def test_nonsense_is_refused_in_one_line(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


def test_seeds_leaves_the_first_as_they_are():
    trials = [{"a": 1}, {"a": 2}, {"a": 3, "seed": 7}]
    assert seeds(trials, 1) == trials
    assert seeds(trials, 3, first=5) == [
        *trials,
        {"a": 1, "seed": 6}, {"a": 2, "seed": 6}, {"a": 1, "seed": 7}, {"a": 2, "seed": 7},
    ]  # fmt: skip
    with pytest.raises(ValueError, match="seeds=0 must be a whole number of at least 1"):
        seeds(trials, 0)
