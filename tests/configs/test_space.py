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
    search,
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


def test_draws_are_those_of_the_random_module():
    # Written out from the version in which distributions were plain functions.
    axes = {
        "lr": log_uniform(1e-4, 1e-2),
        "wd": uniform(0, 0.3),
        "k": integers(2, 9),
        "c": choice(["a", "b", "cc"]),
    }
    first, second = sample(axes, n=2, seed=5)
    assert first == {"lr": 0.0005325801477814596, "wd": 0.29943691561000363, "k": 3, "c": "a"}
    assert second == {"lr": 0.001516630705963264, "wd": 0.15775521868722917, "k": 9, "c": "a"}


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (uniform(1, 3), [1, 1.5, 2, 2.998]),
        (log_uniform(1e-4, 1), [1e-4, 1e-3, 1e-2, 0.9908]),
        (integers(2, 5), [2, 3, 4, 5]),
        (choice(["a", "b"]), ["a", "a", "b", "b"]),
    ],
)
def test_a_quantile_of_each_distribution(axis, values):
    found = [axis.at(u) for u in (0.0, 0.25, 0.5, 0.999)]
    assert found == (values if isinstance(values[0], str) else pytest.approx(values, rel=1e-4))


def test_levels_are_even_on_the_own_scale_and_reach_both_ends():
    assert log_uniform(1e-4, 1e-2).levels(3) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert uniform(0, 1).levels(3) == [0, 0.5, 1]
    assert integers(1, 9).levels(3) == [1, 5, 9] and integers(1, 3).levels(9) == [1, 2, 3]
    assert choice(["ab", 7]).levels(1) == ["ab", 7]


def test_a_list_of_a_search_is_a_choice_and_other_values_are_constants():
    found = search("tpe", {"a": [1, 2], "b": (1, 2), "c": 3}, trials=4)
    assert found.axes == {"a": choice([1, 2]), "b": (1, 2), "c": 3}
    assert (found.method, found.trials, found.seed, found.budget) == ("tpe", 4, 0, "")


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
