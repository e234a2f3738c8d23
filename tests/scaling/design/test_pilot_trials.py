"""Tests the analysis of a pilot: known minima, known best learning rates, minima at an edge."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.design.pilot_trials import (
    EXPONENT,
    EXPONENT_SD,
    Trials,
    best_rate,
    cells,
    extensions,
    posterior_laws,
    rate_rule,
    read_pilot,
    size_line,
    tuned_points,
)
from scaling.fits.isoflop import isoflop
from tests.scaling.ladder import TRUTH, best_params, true_loss

# Measured on small byte-level models: N* grows as C^0.63, far from the prior's 0.5.
SMALL = {"E": 1.12, "A": 53.0, "B": 14400.0, "alpha": 0.47, "beta": 0.81}
PILOT = (3e10, 9e10)
RATES = (0.006, 0.02, 0.06)


def pilot(truth=TRUTH, noise=0.0, seed=0, budgets=PILOT, rates=RATES, best=0.02, slope=0.0, **more):
    """Trials of a known law at several sizes and learning rates.

    The best rate is `best` at width 30 and scales as width^slope. The log loss rises by 0.03 times
    the squared log distance from the best rate. Sizes go from N*/span to N*·span, times `shift`.
    """
    sizes, span, shift = more.get("sizes", 5), more.get("span", 4.0), more.get("shift", 1.0)
    random, rows = np.random.default_rng(seed), []
    for c in budgets:
        for n in shift * best_params(c, truth) * np.geomspace(1 / span, span, sizes):
            width = (n / 25) ** 0.5
            for rate in rates:
                off = np.log(rate / best) - slope * np.log(width / 30)
                error = 0.03 * off**2 + noise * random.standard_normal()
                loss = true_loss(n, c / 6 / n, truth) * np.exp(error)
                rows.append((c, n, c / 6 / n, width, rate, loss))
    return Trials(*np.array(rows).T)


@pytest.mark.parametrize("truth", [TRUTH, SMALL])
def test_the_interval_of_the_sizes_holds_the_known_minimum(truth):
    """90 % intervals, at 30 and 90 times the pilot's largest budget."""
    inside, off = [], []
    for seed in range(25):
        line = read_pilot(pilot(truth, 0.004, seed)).line
        for c in (2.7e12, 8.1e12):
            log_n, sd = line.at(c)
            off.append(log_n - np.log(best_params(c, truth)))
            inside.append(abs(off[-1]) < 1.645 * sd)
    assert 0.8 <= np.mean(inside)
    assert np.abs(off).max() < np.log(2.5)  # so a span of 3 still brackets it


def test_the_prior_alone_misses_where_the_exponent_is_another():
    """Control: with one budget the exponent is that of the prior, and its interval is wider."""
    one = read_pilot(pilot(SMALL, 0.002, budgets=PILOT[:1])).line
    two = read_pilot(pilot(SMALL, 0.002)).line
    assert (one.exponent, one.exponent_sd, one.measured) == (EXPONENT, EXPONENT_SD, None)
    truth = SMALL["beta"] / (SMALL["alpha"] + SMALL["beta"])
    assert abs(two.exponent - truth) < abs(one.exponent - truth) / 2
    assert two.exponent_sd < one.exponent_sd and two.at(8.1e12)[1] < one.at(8.1e12)[1]


def test_a_vague_pilot_leaves_the_exponent_to_the_prior():
    found = isoflop(tuned_points(cells(pilot(SMALL, 0.002))))
    loose = 40 * (found.draws["log_params"] - found.draws["log_params"].mean(axis=0))
    vague = size_line(replace(found, draws={"log_params": loose}))
    assert vague.exponent == pytest.approx(EXPONENT, abs=0.03)
    assert vague.measured == pytest.approx(size_line(found).measured)


@pytest.mark.parametrize("slope", [0.0, -0.5])
def test_the_rule_follows_the_width_only_where_the_best_rate_does(slope):
    rule = rate_rule(cells(pilot(noise=0.003, slope=slope, rates=(0.002, *RATES, 0.18))))
    assert rule.moves == (slope != 0)
    assert rule.measured == pytest.approx(slope, abs=0.15)
    for width in (15, 60):
        assert rule.rate(width) == pytest.approx(0.02 * (width / 30) ** slope, rel=0.2)


def test_the_level_of_the_rate_is_the_largest_budgets_and_both_are_kept():
    low, high = pilot(budgets=PILOT[:1], best=0.03), pilot(budgets=PILOT[1:], best=0.015)
    names = vars(low)
    both = Trials(**{name: np.concatenate([vars(low)[name], vars(high)[name]]) for name in names})
    rule = rate_rule(cells(both))
    assert rule.middle == pytest.approx(0.015, rel=0.01) and not rule.moves
    assert [rate for _, rate in rule.by_budget] == pytest.approx([0.03, 0.015], rel=0.01)


def test_the_vertex_in_log_rate_is_the_best_and_its_loss_the_cells():
    rates = np.array([0.01, 0.03, 0.09])
    losses = 2 * np.exp(0.05 * np.log(rates / 0.04) ** 2)
    assert best_rate(rates, losses) == (pytest.approx(0.04), pytest.approx(2.0), "")
    assert best_rate(rates[:2], losses[:2])[2] == "largest"
    assert best_rate(rates[1:], losses[1:])[2] == "smallest"


def test_rates_that_diverge_bound_the_grid():
    rates = np.array([0.01, 0.03, 0.09])
    assert best_rate(rates, np.array([2.2, 2.0, np.inf])) == (0.03, 2.0, "")
    assert best_rate(rates, np.array([2.0, np.inf, np.inf]))[2] == "smallest"
    trials = pilot()
    with pytest.raises(ValueError, match=r"all runs of width .* diverged, at learning rates 0.006"):
        cells(replace(trials, loss=np.full(len(trials.loss), np.inf)))


@pytest.mark.parametrize(
    ("best", "side", "next_"), [(0.002, "smallest", 0.0018), (0.2, "largest", 0.18)]
)
def test_a_best_rate_at_the_edge_is_said_and_the_next_rate_named(best, side, next_):
    trials = pilot(best=best)
    with pytest.raises(ValueError, match=f"best at the {side} learning rate tried"):
        read_pilot(trials)
    rates, sizes = extensions(cells(trials))
    assert [rate for _, rate in rates] == [pytest.approx(next_, rel=0.01)] * 10 and not sizes


@pytest.mark.parametrize(("shift", "side"), [(12.0, "smallest"), (1 / 12, "largest")])
def test_a_minimum_at_the_edge_is_said_and_sizes_beyond_are_named(shift, side):
    trials = pilot(shift=shift)
    with pytest.raises(ValueError, match=f"the lowest loss is at the {side} size"):
        read_pilot(trials)
    rates, sizes = extensions(cells(trials))
    assert not rates and [budget for budget, _ in sizes] == [3e10, 3e10, 9e10, 9e10]
    for budget, params in sizes:
        tried = trials.params[trials.budget == budget]
        assert params < tried.min() if side == "smallest" else params > tried.max()
    assert extensions(cells(pilot())) == ([], [])  # nothing at an edge, so no extensions


def test_the_posterior_laws_fit_the_pilot_and_differ_where_it_cannot_tell():
    found = read_pilot(pilot(noise=0.003, seed=1))
    assert 0.0015 < found.noise < 0.006 and found.dof == 4
    alpha, beta = found.laws[:, 3:].T
    assert len(found.laws) > 150 and alpha[0] == pytest.approx(TRUTH["alpha"], abs=0.1)
    low, high = np.percentile(beta / (alpha + beta), [5, 95])
    assert low < TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"]) < high
    sure = posterior_laws(found.points, 1e-5, 100)
    assert np.std(sure[:, 3]) < 0.5 * np.std(alpha)


def test_too_few_sizes_are_refused():
    with pytest.raises(ValueError, match="3 sizes; a minimum needs at least 4"):
        read_pilot(pilot(sizes=3))
