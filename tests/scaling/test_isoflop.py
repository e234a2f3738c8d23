"""This file tests iso-FLOP minima: true optima found, edges refused."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.isoflop import budgets, exponents, frontier, isoflop
from tests.scaling.ladder import BUDGETS, TRUTH, best_params, simulate, true_loss


def test_budgets_group_nominally_equal_compute():
    flops = np.array([1e12, 3.02e12, 1.01e12, 0.99e12, 3e12, 9e12])
    assert [sorted(group) for group in budgets(flops)] == [[0, 2, 3], [1, 4], [5]]


def test_exact_losses_give_the_true_optima():
    found = isoflop(simulate(noise=0, sizes=9, span=2, held_out=0))
    assert np.exp(found.array("log_params")) == pytest.approx(
        best_params(np.array(BUDGETS)), rel=0.02
    )
    a = exponents(found)["a"][0]
    assert a == pytest.approx(TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"]), abs=0.003)


def test_the_frontier_is_the_law_along_its_optima():
    budgets_ = tuple(np.geomspace(1e12, 1e15, 7))
    found = isoflop(simulate(noise=0, budgets=budgets_, sizes=9, span=2, held_out=0))
    fitted, _ = frontier(found)
    c = 1e16
    n = best_params(c)
    assert fitted.loss({"flops": np.array([c])})[0] == pytest.approx(
        true_loss(n, c / 6 / n), rel=2e-3
    )
    gamma = TRUTH["alpha"] * TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    assert fitted.constants()["gamma"] == pytest.approx(gamma, rel=0.01)


def test_intervals_hold_the_truth_and_grow_with_noise():
    truth = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    inside, width = 0, {}
    for noise in (0.002, 0.008):
        spans = []
        for seed in range(40):
            draws = exponents(isoflop(simulate(noise, seed, held_out=0), 400, seed))["a"][2]
            low, high = np.percentile(draws, [5, 95])
            inside += low <= truth <= high
            spans.append(high - low)
        width[noise] = np.median(spans)
    assert 0.8 * 80 <= inside <= 80
    assert width[0.008] > 2 * width[0.002]


@pytest.mark.parametrize(("kept", "side"), [((5, 6, 7, 8), "smallest"), ((0, 1, 2, 3), "largest")])
def test_a_minimum_at_the_edge_is_refused_with_the_sizes_that_would_help(kept, side):
    points = simulate(noise=0, sizes=9, held_out=0)
    found = isoflop(points.select(np.isin(np.arange(len(points)) % 9, kept)))
    assert not found.accepted
    for m, best in zip(found.minima, best_params(np.array(BUDGETS)), strict=True):
        assert f"at the {side} size" in m.reason
        assert min(m.bracket) / 1.01 <= best <= max(m.bracket) * 1.01
    with pytest.raises(ValueError, match="0 budgets with a bracketed minimum, and 3 are needed"):
        exponents(found)
    with pytest.raises(ValueError, match="3 are needed"):
        frontier(found)


def test_losses_that_do_not_bend_have_no_minimum():
    """The lowest loss is inside, but the parabola's vertex is not: no number may come of it."""
    points = simulate(noise=0, sizes=4, held_out=0)
    uneven = replace(points, loss=np.tile([2.445, 2.44, 2.85, 3.1], 3))
    assert len(isoflop(points).accepted) == 3
    for m in isoflop(uneven).minima:
        assert "do not bend into a minimum" in m.reason
        assert np.isnan([m.log_params, m.log_tokens, m.log_loss]).all()


def test_too_few_budgets_and_sizes_are_refused():
    two = isoflop(simulate(budgets=BUDGETS[:2], held_out=0))
    assert len(two.accepted) == 2
    with pytest.raises(ValueError, match="2 budgets with a bracketed minimum, and 3 are needed"):
        exponents(two)
    thin = isoflop(simulate(sizes=3, held_out=0))
    assert all("a minimum takes at least 4" in m.reason for m in thin.minima)
