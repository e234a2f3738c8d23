"""Tests that orders are permutations, depend on every part of the key, and look random."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import order
from data.order import permute


@settings(max_examples=200, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_is_a_bijection(n, seed, epoch):
    assert np.array_equal(np.sort(permute(np.arange(n), n, seed, epoch)), np.arange(n))


def test_bijection_test_sees_a_lost_point(monkeypatch):
    """Negative control: a round that overwrites instead of adding is not a bijection."""
    monkeypatch.setattr(order, "_feistel", lambda position, *_: position // 2)
    assert len(np.unique(permute(np.arange(100), 100, 0, 0))) < 100


@pytest.mark.parametrize("n", [2, 3, 17, 1000])
def test_any_subset_in_any_order_gives_the_same_places(n):
    whole = permute(np.arange(n), n, 5, 6)
    some = np.random.default_rng(0).integers(0, n, (3, 50))
    assert np.array_equal(permute(some, n, 5, 6), whole[some])


def test_large_ranges_stay_inside_without_collision():
    n = 10**13 + 7
    index = np.random.default_rng(0).choice(n, 20_000, replace=False, shuffle=False)
    out = permute(index, n, 1, 2)
    assert out.min() >= 0 and out.max() < n and len(np.unique(out)) == len(np.unique(index))


def test_each_part_of_the_key_matters():
    keys = [(0, 0), (0, 1), (1, 0), (0, 0, 0), (10, 0), (1, 0, 0)]
    orders = {tuple(permute(np.arange(50), 50, *key)) for key in keys}
    assert len(orders) == len(keys)


def uniformity(n: int, keys: int) -> float:
    """The largest chi-square per degree of freedom of an element's positions, over elements."""
    landed = np.zeros((n, n))
    for key in range(keys):
        landed[np.arange(n), permute(np.arange(n), n, key, 0)] += 1
    expected = keys / n
    return (((landed - expected) ** 2 / expected).sum(1) / (n - 1)).max()


@pytest.mark.parametrize("n", [5, 12, 31])
def test_every_place_is_equally_likely(n):
    assert uniformity(n, 1500) < 2.5


def test_uniformity_test_sees_too_few_rounds(monkeypatch):
    monkeypatch.setattr(order, "ROUNDS", 0)
    assert uniformity(12, 1500) > 100


def test_neighbours_land_apart():
    n = 100_003
    x = permute(np.arange(n), n, 0, 0)
    for lag in (1, 2, 316, 317):  # 317 is the width of the grid
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 4 / n**0.5
    # A random permutation keeps about one pair of neighbours adjacent in order.
    assert (np.diff(x) == 1).sum() < 10


def test_order_is_the_one_of_earlier_versions():
    """Golden values: another order would change the data of every resumed run."""
    assert permute(np.arange(10), 10, 0, 0).tolist() == GOLDEN_10
    assert permute(np.arange(3), 10**9, 7, 1).tolist() == GOLDEN_1E9


def test_empty_range_is_refused():
    with pytest.raises(ValueError, match="n=0"):
        permute(np.arange(0), 0, 0, 0)


GOLDEN_10 = [2, 9, 7, 5, 8, 6, 0, 4, 3, 1]
GOLDEN_1E9 = [928733652, 946718121, 936133796]
