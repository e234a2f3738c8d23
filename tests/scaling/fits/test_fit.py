"""Tests of the fit engine: published constants, convergence, bootstrap."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize

from scaling.fits.minimise import Sample
from scaling.fits.parametric import fit_parametric
from scaling.fits.robust_fit import bootstrap, fit, numbered, resample_residuals
from scaling.fits.sensitivity import OTHER_FITS, other_fits
from scaling.laws import LAWS
from scaling.settings import Settings
from tests.scaling.ladder import TRUTH, design, simulate, true_loss

# Besiroglu et al. 2024 and the two fits beside it: A, B, E, alpha, beta, a.
PUBLISHED = {
    "huber": (477.826, 2143.417, 1.817218, 0.347310, 0.367172, 0.51390),
    "absolute": (482.006, 2085.434, 1.816864, 0.347813, 0.365854, 0.51264),
}
NAMES = ("A", "B", "E", "alpha", "beta", "a")


def parametric(points, objective="huber"):
    return fit("parametric", points.columns(), points.loss, objective)


@pytest.mark.parametrize("objective", PUBLISHED)
def test_chinchilla_constants(chinchilla, objective):
    found = parametric(chinchilla, objective).constants()
    assert [found[name] for name in NAMES] == pytest.approx(PUBLISHED[objective], rel=5e-5)


def test_chinchilla_objective_and_diagnostics(chinchilla):
    found = parametric(chinchilla)
    assert found.objective == pytest.approx(1.018274e-3, rel=1e-6)
    assert found.reached >= 10
    assert found.gradient_norm < 1e-6
    assert found.condition > 1e3  # strongly correlated constants: what makes the fit hard


def test_chinchilla_all_rows(chinchilla_all):
    found = parametric(chinchilla_all).constants()
    expected = (495.73, 12845.6, 1.8913, 0.34931, 0.45305, 0.5646)
    assert [found[name] for name in NAMES] == pytest.approx(expected, rel=1e-4)


def test_summing_is_what_converges(chinchilla):
    """The same objective averaged, at default tolerances, stops near its start; ours does not."""
    found = parametric(chinchilla)
    start = np.array([np.log(406.4), np.log(410.7), np.log(1.6934), 0.3392, 0.2849])

    def averaged(theta):
        value, gradient = found.problem.value_and_gradient(theta[None], found.sample)
        return value[0] / len(chinchilla), gradient[0] / len(chinchilla)

    stopped = scipy.optimize.minimize(averaged, start, jac=True, method="L-BFGS-B")
    assert stopped.success and stopped.nit <= 5
    assert stopped.fun * len(chinchilla) > 1.05 * found.objective
    assert abs(np.exp(stopped.x[0]) / found.constants()["A"] - 1) > 0.1


STANDARD_ERRORS = {
    "A": 124.5,
    "B": 1293,
    "E": 0.0257,
    "alpha": 0.0154,
    "beta": 0.0206,
    "a": 0.0200,
}


def test_chinchilla_bootstrap(chinchilla):
    """The published standard errors, by the published draws: every digit that was printed."""
    found = parametric(chinchilla)
    drawn = found.law.constants(bootstrap(found, chinchilla.run, 4000))
    for name, error in STANDARD_ERRORS.items():
        assert np.std(drawn[name], ddof=1) == pytest.approx(error, rel=2e-3), name
    assert np.percentile(drawn["a"], [2.5, 97.5]) == pytest.approx((0.481, 0.556), abs=0.001)


def test_another_seed_misses_the_digits(chinchilla):
    """Negative control: other draws of the same bootstrap agree within its noise, not in digits."""
    found = parametric(chinchilla)
    drawn = found.law.constants(bootstrap(found, chinchilla.run, 4000, seed=0))
    off = [abs(np.std(drawn[n], ddof=1) / error - 1) for n, error in STANDARD_ERRORS.items()]
    assert 5e-3 < max(off) < 0.15


def test_runs_are_numbered_as_they_appear():
    """Whatever their names: the published draws pick rows in the order of the file."""
    count, which = numbered(np.array(["b", "b", "a", "c", "a"]))
    assert count == 3 and list(which) == [0, 0, 1, 2, 1]


def test_chinchilla_predicts_beyond_1e21(chinchilla):
    small, large = (
        chinchilla.select(mask) for mask in (chinchilla.flops <= 1e21, chinchilla.flops > 1e21)
    )
    errors = np.abs(parametric(small).loss(large.columns()) / large.loss - 1)
    assert len(errors) == 23
    assert errors.mean() == pytest.approx(0.0105, abs=5e-5)
    assert errors.max() == pytest.approx(0.028, abs=5e-4)


def test_exact_data_give_the_exact_law():
    n, d = design()
    found = fit("parametric", {"params": n, "tokens": d}, true_loss(n, d)).constants()
    for name, value in TRUTH.items():
        assert found[name] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", LAWS)
def test_gradients(name):
    """Analytic gradients are those of central differences, at every start of every law."""
    law, random = LAWS[name], np.random.default_rng(0)
    columns = {
        "params": random.uniform(1e5, 1e9, 9),
        "tokens": random.uniform(1e8, 1e11, 9),
        "flops": random.uniform(1e14, 1e20, 9),
        "unique_tokens": random.uniform(5e7, 1e10, 9),
    }
    x = law.log_inputs(columns)
    theta = law.starts(x, np.log(random.uniform(2, 4, 9)))
    value, gradient = law.evaluate(theta, x)
    assert value.shape == (len(theta), 9)
    for k in range(theta.shape[1]):
        step = np.zeros(theta.shape[1])
        step[k] = 1e-6
        up, down = (law.evaluate(theta + sign * step, x)[0] for sign in (1, -1))
        numeric = (up - down) / 2e-6
        assert np.allclose(numeric, gradient[:, k], rtol=1e-4, atol=1e-6), law.coordinates[k]


@pytest.mark.parametrize("name", LAWS)
def test_every_law_recovers_itself(name):
    """Losses made by a law are fitted by it to six digits, and not by a plain power of C."""
    law, random = LAWS[name], np.random.default_rng(1)
    n, d = np.exp(random.uniform(np.log(1e5), np.log(1e9), 40)), np.exp(random.uniform(18, 26, 40))
    columns = {
        "params": n,
        "tokens": d,
        "flops": 6 * n * d,
        "unique_tokens": d / random.uniform(1, 9, 40),
    }
    starts = law.starts(law.log_inputs(columns), np.full(40, np.log(3.0)))
    theta = starts[len(starts) // 2] * 1.03
    loss = law.loss(theta, columns)
    found = fit(law, columns, loss, "squares")
    assert np.abs(found.loss(columns) / loss - 1).max() < 1e-6
    wrong = fit("frontier_without_floor", columns, loss * np.exp(0.01 * np.sin(np.arange(40))))
    assert np.abs(wrong.residuals).max() > 1e-3


def test_bootstrap_draws_runs_not_points():
    """Ten copies of each run tell no more than one: the interval must not shrink."""
    points = simulate(seed=3, held_out=0)
    one = parametric(points)
    ten = fit(
        "parametric",
        {name: np.repeat(values, 10) for name, values in points.columns().items()},
        np.repeat(points.loss, 10),
    )
    by_run = bootstrap(ten, np.repeat(points.run, 10), 500).std(axis=0)[3]
    by_point = bootstrap(ten, np.arange(10 * len(points)), 500).std(axis=0)[3]
    alone = bootstrap(one, points.run, 500).std(axis=0)[3]
    assert by_run == pytest.approx(alone, rel=0.2)
    assert by_point < 0.6 * alone


def test_bootstrap_is_seeded():
    points = simulate(held_out=0)
    found = parametric(points)
    draws = [bootstrap(found, points.run, 50, seed) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_draws_end_at_their_own_global_minimum():
    """Starting a draw from the full fit loses nothing against starting it from the whole grid."""
    points = simulate(seed=5, held_out=0)
    found = parametric(points)
    drawn = bootstrap(found, points.run, 8, seed=2, resampling="residuals")
    sample = resample_residuals(found, points.run, 8, np.random.RandomState(2))
    for theta, log_loss in zip(drawn, sample.log_loss, strict=True):
        anew = fit("parametric", points.columns(), np.exp(log_loss))
        one = Sample(log_loss, sample.weights)
        value, _ = found.problem.value_and_gradient(theta[None], one)
        assert value[0] <= anew.objective * (1 + 1e-6)


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="4 points are too few for 5 constants"):
        fit("parametric", {"params": np.ones(4), "tokens": np.ones(4)}, np.ones(4))


def test_unknown_objective_is_refused():
    points = simulate()
    with pytest.raises(ValueError, match=r"objective='mean' .* absolute, huber, squares"):
        parametric(points, "mean")


def test_weights_follow_the_standard_errors():
    """A run of a hundredth of the noise weighs ten thousand times more."""
    points = simulate(0.004, seed=1, held_out=0)
    sharp = np.where(np.arange(len(points)) % 2, 0.02, 0.0002)
    weighed = replace(
        points, loss_se=sharp * points.loss, loss=true_loss(points.params, points.tokens)
    )
    noisy = weighed.loss * np.exp(sharp * np.random.default_rng(0).standard_normal(len(points)))
    weighed = replace(weighed, loss=noisy)
    settings = Settings(draws=0, objective="squares")
    plain, weighted = (
        fit_parametric(weighed, replace(settings, weights=name)).fitted.constants()["E"]
        for name in ("none", "loss_se")
    )
    assert abs(weighted - TRUTH["E"]) < 0.3 * abs(plain - TRUTH["E"])
    with pytest.raises(ValueError, match="has none for sim-003"):
        bad = np.where(np.arange(len(points)) == 3, np.nan, sharp)
        fit_parametric(replace(weighed, loss_se=bad), replace(settings, weights="loss_se"))


def test_other_fits_started_at_the_known_one_end_where_the_whole_grid_does(chinchilla):
    """The sensitivity table takes one start for each fit: it must not miss a better minimum."""
    found = fit_parametric(chinchilla, Settings(draws=0))
    rows = {row["label"]: row for row in other_fits(chinchilla, found, Settings(draws=0))}
    for label, objective, delta in OTHER_FITS:
        whole = fit("parametric", chinchilla.columns(), chinchilla.loss, objective, delta)
        for name in ("E", "alpha", "beta"):
            assert rows[label][name]["value"] == pytest.approx(whole.constants()[name], rel=1e-4)
    assert rows["least absolute deviation"]["a"]["value"] == pytest.approx(0.51264, rel=1e-4)


def test_the_published_outliers_are_what_the_table_says_they_are(chinchilla_all, chinchilla):
    """All 245 runs; without the 2 % of highest loss, which are the five left out in print."""
    found = fit_parametric(chinchilla_all, Settings(draws=0))
    rows = {row["label"]: row for row in other_fits(chinchilla_all, found, Settings(draws=0))}
    dropped = rows["without the 5 of highest loss"]
    assert dropped["n"] == 240
    assert dropped["a"]["value"] == pytest.approx(0.51390, rel=1e-4)
    assert found.constants(found.fitted.theta[None])["a"][0] == pytest.approx(0.5646, rel=1e-4)
