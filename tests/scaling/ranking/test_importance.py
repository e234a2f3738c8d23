"""Tests of the shares of variance that keys explain."""

import sys
from itertools import product

import numpy as np
import pytest

from scaling.ranking import importance
from scaling.ranking.importance import Partition
from tests.scaling.ranking.simulated import compared

A, B, C = "x.a", "x.b", "x.c"


def test_the_shares_of_a_tree_are_those_of_the_function_that_it_represents():
    """A full tree over a grid against the analysis of variance of the grid, exactly."""
    tree = pytest.importorskip("sklearn.tree").DecisionTreeRegressor()
    grid = np.array(list(product(range(3), range(4), range(2))))
    y = np.random.default_rng(0).normal(size=(3, 4, 2))
    shares = Partition.of(tree.fit(grid, y.ravel()).tree_, np.array([3, 4, 2]))
    rest = y - y.mean()
    alone = [rest.mean(axis=(1, 2)), rest.mean(axis=(0, 2)), rest.mean(axis=(0, 1))]
    for key, effect in enumerate(alone):
        assert shares.main_effect(key) == pytest.approx((effect**2).mean())
    both = rest.mean(axis=2) - alone[0][:, None] - alone[1]
    assert shares.interaction(0, 1) == pytest.approx((both**2).mean())
    assert shares.variance() == pytest.approx(y.var())


def shares(loss, seeds=2):
    pytest.importorskip("sklearn")
    random = np.random.default_rng(0)
    rows = [
        ({A: a, B: b, C: c, "seed": seed}, loss(a, b, c) + 0.05 * random.normal())
        for a, b, c, seed in product(range(4), range(3), range(2), range(seeds))
    ]
    alone, pairs, why = importance.importance(*compared(rows), 0.95)
    return {key: share["value"] for key, share in alone.items()}, pairs, why


def test_the_key_that_matters_has_the_variance():
    alone, pairs, why = shares(lambda a, b, c: a)
    assert not why
    assert alone[A] > 0.9 and alone[B] < 0.02 and alone[C] < 0.02
    assert pairs[0]["importance"]["value"] < 0.05


def test_an_interaction_is_found_where_no_key_matters_alone():
    alone, pairs, _ = shares(lambda a, b, c: (a < 2) ^ c)
    assert pairs[0]["keys"] == [A, C] and pairs[0]["importance"]["value"] > 0.7
    assert max(alone.values()) < 0.1


def test_noise_has_no_importance():
    alone, pairs, why = shares(lambda a, b, c: 0.0, seeds=1)
    assert max(alone.values()) < 0.1 and pairs[0]["importance"]["value"] < 0.1
    assert "a forest of these 24 trials predicts" in why


def test_without_the_extra_one_line_names_it(monkeypatch):
    rows = [({A: a, B: b}, a) for a, b in product(range(4), range(3))]
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    assert importance.importance(*compared(rows), 0.95) == ({}, [], importance.EXTRA)
    few = importance.importance(*compared(rows[:4]), 0.95)
    assert few == ({}, [], "4 configurations are too few for importances; 8 do")
