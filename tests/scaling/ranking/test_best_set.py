"""Tests of what a ranking claims about the best configuration."""

import numpy as np
import pytest
from scipy import stats

from scaling.ranking.best_set import best_set, holm
from scaling.ranking.seed_noise import moderated, seed_noise
from tests.scaling.ranking.simulated import compared


def repeated(*losses, seeds=None):
    """Configurations with these losses, one row each, by their seeds."""
    rows = []
    for name, row in enumerate(losses):
        own = seeds[name] if seeds else range(len(row))
        rows += [({"x": name, "seed": s}, loss) for s, loss in zip(own, row, strict=True)]
    return compared(rows)[0]


def test_two_configurations_with_the_same_seeds_are_the_paired_t_test():
    a, b = [2.0, 2.3, 2.1, 2.6], [2.1, 2.5, 2.15, 2.7]
    noise = seed_noise(repeated(a, b))
    assert noise.paired
    assert noise.p_values(0)[1] == pytest.approx(
        stats.ttest_rel(b, a, alternative="greater").pvalue
    )
    # Without common seeds, what seeds do to both is noise.
    apart = seed_noise(repeated(a, b, seeds=[range(4), range(4, 8)]))
    assert not apart.paired and apart.p_values(0)[1] > 5 * noise.p_values(0)[1]


def test_different_spreads_stay_different_and_alike_ones_are_shared():
    """Smyth 2004: with many degrees of freedom the own variance counts, with one the common one."""
    own, freedom = np.array([0.01, 0.02, 1.0, 2.0]), np.full(4, 30.0)
    shrunk, prior = moderated(own, freedom)
    assert prior < 2 and shrunk == pytest.approx(own, rel=0.2)
    few = np.random.default_rng(0).chisquare(1, size=200)
    shrunk, prior = moderated(few, np.ones(200))
    assert prior == 6.0 and np.std(shrunk) == pytest.approx(np.std(few) / 7)
    assert moderated(np.zeros(3), np.ones(3))[0] == pytest.approx(0.0)


def test_holm_known_values():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_best_stands_alone_if_the_others_are_far():
    random = np.random.default_rng(0)
    near = 0.01 * random.normal(size=(4, 2))
    found = best_set(repeated(*np.add(near, [[2.0], [2.3], [2.4], [2.5]])), 0.95)
    assert found.member == (True, False, False, False) and found.more_seeds == 0
    assert found.best == 0 and np.isnan(found.p[0]) and (found.p[1:] < 0.05).all()
    # The control: the same noise without the differences tells nothing.
    assert best_set(repeated(*(near + 2.0)), 0.95).member == (True,) * 4


def test_for_accuracies_the_highest_is_best():
    found = best_set(repeated([0.9, 0.91], [0.5, 0.51], [0.6, 0.61]), 0.95, sign=-1.0)
    assert found.best == 0 and found.member == (True, False, False)


def test_one_seed_is_compared_with_nothing():
    found = best_set(repeated([2.0], [9.0]), 0.95)
    assert found.member == (None, None) and found.best is None and found.test is None
    # Nor is a lucky run with one seed the best of those with several.
    mixed = best_set(repeated([1.0], [2.0, 2.01], [3.0, 3.02]), 0.95)
    assert mixed.member[0] is None and mixed.best == 1


def test_more_seeds_reach_the_power_that_they_are_planned_for():
    """80 % of the sweeps with that many seeds tell the two apart, if they differ as measured."""
    shift = np.array([-0.01, 0.01])
    losses = np.add([[2.0], [2.02], [2.5]], [shift, -shift, shift])
    more = best_set(repeated(*losses), 0.95).more_seeds
    noise = seed_noise(repeated(*losses[:3]))
    assert 1 <= more <= 20
    random, told = np.random.default_rng(0), []
    for _ in range(200):
        drawn = random.normal(size=(3, 2 + more)) * np.sqrt(noise.variances[:, None])
        found = best_set(repeated(*np.add(drawn, [[2.0], [2.02], [2.5]])), 0.95)
        told.append(found.member == (True, False, False))
    assert 0.7 < np.mean(told) < 0.95
    # Differences twice as large need fewer.
    assert best_set(repeated(*np.add(losses, [[0], [0.02], [0]])), 0.95).more_seeds < more


def test_equal_results_with_every_seed_are_certain():
    found = best_set(repeated([2.0, 2.0], [2.1, 2.1], [2.0, 2.0]), 0.95)
    assert found.member == (True, False, True) and found.more_seeds is None
