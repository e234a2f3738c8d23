"""Tests iso-FLOP minima: true optima are found, minima at an edge are refused."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.fits.isoflop import bias, budgets, exponents, frontier, isoflop
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


def test_noise_is_the_spread_not_an_error_that_all_runs_share():
    points = simulate(0.004, 1, held_out=0)
    none, large = (replace(points, loss_se=np.full(len(points), se)) for se in (np.nan, 0.5))
    assert isoflop(large).spread == isoflop(none).spread < 0.01
    # Parabolas through three points have no spread, so the recorded error is used.
    assert isoflop(large, window=3).spread > 0.1
    assert not len(isoflop(none, window=3).draws["log_params"])


@pytest.mark.parametrize(("kept", "side"), [((5, 6, 7, 8), "smallest"), ((0, 1, 2, 3), "largest")])
def test_a_minimum_at_the_edge_is_refused_with_the_sizes_that_would_help(kept, side):
    points = simulate(noise=0, sizes=9, held_out=0)
    found = isoflop(points.select(np.isin(np.arange(len(points)) % 9, kept)))
    assert not found.accepted
    for m, best in zip(found.minima, best_params(np.array(BUDGETS)), strict=True):
        assert f"at the {side} size" in m.reason
        assert min(m.bracket) / 1.01 <= best <= max(m.bracket) * 1.01
    with pytest.raises(ValueError, match="0 budgets with a bracketed minimum; 3 are needed"):
        exponents(found)
    with pytest.raises(ValueError, match="3 are needed"):
        frontier(found)


def test_losses_that_do_not_bend_have_no_minimum():
    """The lowest loss is inside but the parabola's vertex is not, so the minimum has no value."""
    points = simulate(noise=0, sizes=4, held_out=0)
    uneven = replace(points, loss=np.tile([2.445, 2.44, 2.85, 3.1], 3))
    assert len(isoflop(points).accepted) == 3
    for m in isoflop(uneven).minima:
        assert "do not bend into a minimum" in m.reason
        assert np.isnan([m.log_params, m.log_tokens, m.log_loss]).all()


def test_too_few_budgets_and_sizes_are_refused():
    two = isoflop(simulate(budgets=BUDGETS[:2], held_out=0))
    assert len(two.accepted) == 2
    with pytest.raises(ValueError, match="2 budgets with a bracketed minimum; 3 are needed"):
        exponents(two)
    thin = isoflop(simulate(sizes=3, held_out=0))
    assert all("a minimum needs at least 4" in m.reason for m in thin.minima)


def test_splines_find_the_true_optima_of_wide_grids_where_parabolas_do_not():
    """Points far from the minimum bias the parabola, but not the Akima spline."""
    points = simulate(noise=0, sizes=11, span=12, held_out=0)
    truth = np.log(best_params(np.array(BUDGETS)))
    wide = isoflop(points, window=11).array("log_params") - truth
    spline = isoflop(points, interpolation="akima").array("log_params") - truth
    assert np.abs(spline).max() < 0.05
    assert np.abs(wide).min() > 3 * np.abs(spline).max()


def test_intervals_of_splines_hold_the_truth():
    truth = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])
    inside = 0
    for seed in range(40):
        found = isoflop(simulate(0.004, seed, sizes=8, held_out=0), 300, seed, 5, "akima")
        low, high = np.percentile(exponents(found)["a"][2], [5, 95])
        inside += low <= truth <= high
    assert inside >= 32


@pytest.mark.parametrize("shift", [0.1, 10.0])
def test_the_bias_of_a_lopsided_grid_is_what_it_does_to_the_minima(shift):
    """With sizes off centre and no noise, the estimated bias equals the actual error."""
    base = simulate(noise=0, sizes=11, span=30, held_out=0)
    n = base.params * shift
    points = replace(base, params=n, tokens=base.flops / 6 / n)
    points = replace(points, loss=true_loss(points.params, points.tokens))
    found = isoflop(points, window=11)
    error = found.array("log_params") - np.log(best_params(np.array(BUDGETS)))
    found_bias = bias(points, found, lambda p: true_loss(p.params, p.tokens), 11)
    assert np.array(found_bias["shifts"]) == pytest.approx(error, abs=2e-3)
    assert np.abs(error).max() > 0.1 and abs(found_bias["a"]) > 0.02
    narrow = simulate(noise=0, sizes=9, span=1.5, held_out=0)
    small = bias(narrow, isoflop(narrow), lambda p: true_loss(p.params, p.tokens))
    assert np.abs(small["shifts"]).max() < 0.01
