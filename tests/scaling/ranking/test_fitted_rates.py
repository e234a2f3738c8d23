"""Tests of the learning rate that a grid shows to be best."""

import numpy as np
import pytest

from scaling.ranking.fitted_rates import fitted_rates
from tests.scaling.ranking.simulated import compared

RATE, WIDTH = "optimizer.learning_rate", "model.d_model"
RATES = (0.005, 0.01, 0.02, 0.04, 0.08)


def fitted(optimum, rates=RATES, seeds=1, noise=0.0, rise=0.05, widths=(32,), sign=1.0):
    random = np.random.default_rng(0)
    rows = [
        ({RATE: rate, WIDTH: width, "seed": seed},
         2 + sign * rise * np.log2(rate / optimum) ** 2 + noise * random.normal())
        for width in widths for rate in rates for seed in range(seeds)
    ]  # fmt: skip
    return fitted_rates(*compared(rows), sign)


def test_the_minimum_of_a_parabola_is_found_at_each_width():
    one, other = fitted(0.017, widths=(32, 64))
    assert one["at"] == {WIDTH: 32} and other["at"] == {WIDTH: 64}
    assert one["value"] == pytest.approx(0.017, rel=0.005) and one["inside"]
    assert one["loss"] == pytest.approx(2.0, abs=1e-5)
    assert one["lo"] < 0.017 < one["hi"] and one["level"] == 0.9 and one["reason"] == ""


def test_the_maximum_of_an_accuracy_is_found():
    (one,) = fitted(0.017, sign=-1.0)
    assert one["value"] == pytest.approx(0.017, rel=0.005) and one["loss"] == pytest.approx(2.0)


def test_more_noise_is_a_wider_interval_and_too_much_has_no_bounds():
    widths = []
    for noise in (0.001, 0.01):
        (one,) = fitted(0.02, seeds=3, noise=noise)
        widths.append(np.log2(one["hi"] / one["lo"]))
    assert widths[0] < widths[1] / 1.5
    (lost,) = fitted(0.02, seeds=2, noise=0.01, rise=0.0005)
    assert lost["lo"] is None or lost["hi"] is None or lost["value"] is None
    assert lost["reason"]


@pytest.mark.parametrize(("optimum", "end"), [(0.5, "largest"), (0.0005, "smallest")])
def test_a_minimum_beyond_the_grid_is_said_and_not_extrapolated(optimum, end):
    (one,) = fitted(optimum)
    assert one["value"] is None and not one["inside"]
    assert f"beyond the {end} rate" in one["reason"]


def test_three_rates_and_one_seed_have_no_interval():
    (one,) = fitted(0.012, rates=RATES[:3])
    assert one["value"] == pytest.approx(0.012, rel=0.01) and one["lo"] is None
    assert one["reason"] == "one seed and three rates: no interval"
    assert fitted(0.012, rates=RATES[:2]) == []


def test_losses_that_explode_do_not_move_the_minimum():
    rows = [({RATE: rate}, 2 + 0.05 * np.log2(rate / 0.017) ** 2) for rate in RATES]
    rows[-1] = ({RATE: 0.08}, 9.0)
    (one,) = fitted_rates(*compared(rows), 1.0)
    assert one["value"] == pytest.approx(0.017, rel=0.01)
