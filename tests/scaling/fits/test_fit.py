"""Tests the fit engine: gradients, recovery of known laws, bootstrap, weights."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.fits.minimise import Sample
from scaling.fits.parametric import fit_parametric
from scaling.fits.robust_fit import bootstrap, fit, numbered, resample_residuals
from scaling.laws import LAWS
from scaling.settings import Settings
from tests.scaling.ladder import TRUTH, design, simulate, true_loss


def parametric(points, objective="huber"):
    return fit("parametric", points.columns(), points.loss, objective)


def test_runs_are_numbered_as_they_appear():
    """Names do not matter: the published draws pick rows in the order of the file."""
    count, which = numbered(np.array(["b", "b", "a", "c", "a"]))
    assert count == 3 and list(which) == [0, 0, 1, 2, 1]


def test_exact_data_give_the_exact_law():
    n, d = design()
    found = fit("parametric", {"params": n, "tokens": d}, true_loss(n, d)).constants()
    for name, value in TRUTH.items():
        assert found[name] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("name", LAWS)
def test_gradients(name):
    """Analytic gradients equal central differences, at every start of every law."""
    law, random = LAWS[name], np.random.default_rng(0)
    columns = {
        "params": random.uniform(1e5, 1e9, 9),
        "tokens": random.uniform(1e8, 1e11, 9),
        "flops": random.uniform(1e14, 1e20, 9),
        "unique_tokens": random.uniform(5e7, 1e10, 9),
        "k": random.uniform(1, 100, 9),
        "bits": random.uniform(2, 8, 9),
        "kl": random.uniform(0.1, 30, 9),
        "examples": random.uniform(10, 1e5, 9),
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
    """A law fits losses made by it to six digits; a plain power of C does not."""
    law, random = LAWS[name], np.random.default_rng(1)
    n, d = np.exp(random.uniform(np.log(1e5), np.log(1e9), 40)), np.exp(random.uniform(18, 26, 40))
    columns = {
        "params": n,
        "tokens": d,
        "flops": 6 * n * d,
        "unique_tokens": d / random.uniform(1, 9, 40),
        "k": random.uniform(1, 100, 40),
        "bits": random.uniform(2, 8, 40),
        "kl": random.uniform(0.1, 30, 40),
        "examples": np.exp(random.uniform(2, 12, 40)),
    }
    starts = law.starts(law.log_inputs(columns), np.full(40, np.log(3.0)))
    theta = starts[len(starts) // 2] * 1.03
    loss = law.loss(theta, columns)
    found = fit(law, columns, loss, "squares")
    assert np.abs(found.loss(columns) / loss - 1).max() < 1e-6
    wrong = fit(
        "frontier_without_floor", columns, np.abs(loss) * np.exp(0.01 * np.sin(np.arange(40)))
    )
    assert np.abs(wrong.residuals).max() > 1e-3


def test_bootstrap_draws_runs_not_points():
    """Ten copies of a run add no information: the interval must not shrink."""
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
    """Starting a draw at the full fit is as good as starting it from the whole grid."""
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
    """A run with a hundredth of the noise has ten thousand times the weight."""
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
