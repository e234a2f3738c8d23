"""Tests the fit engine on the runs of Hoffmann et al. 2022: constants, bootstrap, outliers."""

import numpy as np
import pytest
import scipy.optimize

from scaling.fits.parametric import fit_parametric
from scaling.fits.robust_fit import bootstrap, fit
from scaling.fits.sensitivity import OTHER_FITS, other_fits
from scaling.settings import Settings


def parametric(points, objective="huber"):
    return fit("parametric", points.columns(), points.loss, objective)


@pytest.mark.parametrize("objective", ["huber", "absolute"])
def test_constants(chinchilla, objective):
    found = parametric(chinchilla.runs, objective).constants()
    for name, value in chinchilla.expected[objective].items():
        assert found[name] == pytest.approx(value, rel=5e-5), name


@pytest.mark.parametrize("chinchilla", ["simulated"], indirect=True)
def test_the_law_of_the_simulation_lies_within_two_standard_errors(chinchilla):
    found = parametric(chinchilla.runs).constants()
    for name, value in chinchilla.expected["law"].items():
        assert abs(found[name] - value) < 2 * chinchilla.expected["standard errors"][name], name


def test_objective_and_diagnostics(chinchilla):
    found = parametric(chinchilla.runs)
    assert found.objective == pytest.approx(chinchilla.expected["objective"], rel=1e-6)
    assert found.reached >= 10
    assert found.gradient_norm < 1e-6
    assert found.condition > 1e3  # strongly correlated constants make the fit hard


def test_all_rows(chinchilla):
    found = parametric(chinchilla.every).constants()
    for name, value in chinchilla.expected["all rows"].items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_summing_is_what_converges(chinchilla):
    """At default tolerances, the mean instead of the sum of the losses stops near the start."""
    found = parametric(chinchilla.runs)
    start = np.array([np.log(406.4), np.log(410.7), np.log(1.6934), 0.3392, 0.2849])
    n = len(chinchilla.runs)

    def averaged(theta):
        value, gradient = found.problem.value_and_gradient(theta[None], found.sample)
        return value[0] / n, gradient[0] / n

    stopped = scipy.optimize.minimize(averaged, start, jac=True, method="L-BFGS-B")
    assert stopped.success and stopped.nit <= 5
    assert stopped.fun * n > 1.05 * found.objective
    assert abs(np.exp(stopped.x[0]) / found.constants()["A"] - 1) > 0.1


def test_bootstrap(chinchilla):
    """The published draws give every printed digit of the standard errors."""
    found = parametric(chinchilla.runs)
    drawn = found.law.constants(bootstrap(found, chinchilla.runs.run, 4000))
    for name, error in chinchilla.expected["standard errors"].items():
        assert np.std(drawn[name], ddof=1) == pytest.approx(error, rel=2e-3), name
    interval = np.percentile(drawn["a"], [2.5, 97.5])
    assert interval == pytest.approx(chinchilla.expected["interval of a"], abs=0.001)


def test_another_seed_misses_the_digits(chinchilla):
    """Negative control: other draws agree within the noise of the bootstrap, not in every digit."""
    found = parametric(chinchilla.runs)
    drawn = found.law.constants(bootstrap(found, chinchilla.runs.run, 4000, seed=0))
    errors = chinchilla.expected["standard errors"]
    off = [abs(np.std(drawn[name], ddof=1) / error - 1) for name, error in errors.items()]
    assert 5e-3 < max(off) < 0.15


def test_predictions_beyond_1e21(chinchilla):
    runs, (n, mean, most) = chinchilla.runs, chinchilla.expected["errors beyond 1e21"]
    small = runs.flops < 1.001e21  # 1e21 itself, with room for rounding
    large = runs.select(~small)
    errors = np.abs(parametric(runs.select(small)).loss(large.columns()) / large.loss - 1)
    assert len(errors) == n
    assert errors.mean() == pytest.approx(mean, abs=5e-5)
    assert errors.max() == pytest.approx(most, abs=5e-4)


def test_other_fits_started_at_the_known_one_end_where_the_whole_grid_does(chinchilla):
    """The sensitivity table uses one start per fit and must not miss a better minimum."""
    runs = chinchilla.runs
    found = fit_parametric(runs, Settings(draws=0))
    rows = {row["label"]: row for row in other_fits(runs, found, Settings(draws=0))}
    for label, objective, delta in OTHER_FITS:
        whole = fit("parametric", runs.columns(), runs.loss, objective, delta)
        for name in ("E", "alpha", "beta"):
            assert rows[label][name]["value"] == pytest.approx(whole.constants()[name], rel=1e-4)
    a = rows["least absolute deviation"]["a"]["value"]
    assert a == pytest.approx(chinchilla.expected["absolute"]["a"], rel=1e-4)


def test_the_published_outliers_are_those_that_the_table_names(chinchilla):
    """Dropping the 2 % of highest loss from all 245 runs drops the five published outliers."""
    every, expected = chinchilla.every, chinchilla.expected
    found = fit_parametric(every, Settings(draws=0))
    rows = {row["label"]: row for row in other_fits(every, found, Settings(draws=0))}
    dropped = rows["without the 5 of highest loss"]
    assert dropped["n"] == 240
    assert dropped["a"]["value"] == pytest.approx(expected["huber"]["a"], rel=1e-4)
    a = found.constants(found.fitted.theta[None])["a"][0]
    assert a == pytest.approx(expected["all rows"]["a"], rel=1e-4)
