"""Tests approach 1: the envelope of training curves, and the effect of a decaying learning rate."""

from dataclasses import replace

import numpy as np
import pytest

from scaling.fits.envelope import decaying, envelope, mid_run_excess, smooth
from scaling.validate import Unsupported
from tests.scaling.ladder import TRUTH, best_params, simulate, true_loss

SIZES = np.geomspace(3e4, 3e6, 13)
EXPONENT = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])


def trained(schedule="constant", excess=0.0, noise=0.0, horizons=(1.0,)):
    """One run per size and horizon. Curves start `excess` above the known law and end on it."""
    random = np.random.default_rng(0)
    points = simulate(noise=0, held_out=0).select(np.zeros(len(SIZES) * len(horizons), bool))
    n = np.repeat(SIZES, len(horizons))
    d = 3e14 / 6 / n**1.0 * np.tile(horizons, len(SIZES))
    share = np.geomspace(1e-3, 1, 80)
    curves = []
    for params, tokens in zip(n, d, strict=True):
        loss = true_loss(params, tokens * share) * (1 + excess * (1 - share))
        loss = loss * np.exp(noise * random.standard_normal(len(share)))
        curves.append(np.stack([np.arange(80), tokens * share, loss], axis=1))
    nan = np.full(len(n), np.nan)
    return replace(
        points, run=np.array([f"r{i}" for i in range(len(n))]), params=n, tokens=d,
        flops=6 * n * d, loss=true_loss(n, d), loss_se=nan, holdout=np.zeros(len(n), bool),
        facts=({"schedule": schedule},) * len(n), curves=tuple(curves),
    )  # fmt: skip


def test_the_envelope_of_exact_curves_has_the_true_exponents():
    found = envelope(trained(), draws=50)
    assert found.a == pytest.approx(EXPONENT, abs=0.02)
    assert found.a + found.b == pytest.approx(1)
    inside = found.params / best_params(found.flops)
    assert 0.6 < inside.min() and inside.max() < 1.6  # the nearest of the sizes wins
    low, high = np.percentile(found.draws["a"], [5, 95])
    assert low < found.a < high


def test_points_before_the_end_of_a_decay_lie_above_the_frontier():
    """Negative control of the method: the same runs with curves above the law before their end."""
    above = []
    for runs in (trained(), trained("cosine", 0.3)):
        found = envelope(runs, draws=0)
        best = best_params(found.flops)
        above.append(np.median(found.loss / true_loss(best, found.flops / 6 / best) - 1))
    assert abs(above[0]) < 0.005 and above[1] > 0.1


def test_smoothing_takes_noise_off_and_keeps_a_line():
    line = np.linspace(3, 2, 20)
    assert smooth(line) == pytest.approx(line)
    noise = np.random.default_rng(0).standard_normal(4000)
    assert smooth(noise).std() < 0.7 * noise.std()


def test_a_decaying_schedule_is_detected_and_measured():
    assert decaying(trained()) == (0, ())
    cosine = trained("cosine", 0.1, horizons=(0.5, 1.0))
    assert decaying(cosine) == (26, ("cosine",))
    excess = np.expm1(mid_run_excess(cosine))
    assert len(excess) == 13 and excess == pytest.approx(0.05, abs=0.005)
    assert mid_run_excess(trained(horizons=(0.5, 1.0))) == pytest.approx(0, abs=1e-4)


def test_what_carries_no_envelope_says_why():
    with pytest.raises(Unsupported, match="no training curves"):
        envelope(simulate())
    runs = trained()
    with pytest.raises(Unsupported, match="are needed; add sizes"):
        envelope(runs.select(np.arange(len(runs)) < 4))
