"""Tests metrics: ratios of sums over rows, and their standard errors."""

import math

import numpy as np
import pytest

from train.objectives import next_token
from train.objectives.metrics import Metric, measure

LOSS = Metric("nats/token", of="nats", per="weights")
BITS = Metric("bits/byte", of="nats", per="bytes", divisor=math.log(2))


def rows(batches: int = 3, size: int = 4) -> dict[str, np.ndarray]:
    """Sums [E, B] of rows of different lengths. The very last row is padding."""
    rng = np.random.default_rng(0)
    weights = rng.integers(5, 20, (batches, size)).astype(np.float32)
    nats = (weights * rng.uniform(1, 3, weights.shape)).astype(np.float32)
    weights[-1, -1] = nats[-1, -1] = 0
    return {"nats": nats, "weights": weights, "bytes": 3 * weights + (weights > 8)}


def standard_error(of: np.ndarray, per: np.ndarray) -> float:
    """Standard error of Σ of / Σ per, from the influence of each row on the ratio."""
    ratio = of.sum() / per.sum()
    influence = (of - ratio * per) / per.mean()
    return np.std(influence, ddof=1) / math.sqrt(len(of))


@pytest.mark.parametrize("metric", [LOSS, BITS], ids=["loss", "bits"])
def test_a_metric_is_a_ratio_of_sums_and_its_error_that_of_the_rows(metric):
    found = rows()
    of = found["nats"].ravel()[:-1].astype(np.float64) / metric.divisor
    per = found[metric.per].ravel()[:-1].astype(np.float64)
    value, error = metric(found)
    assert value == pytest.approx(of.sum() / per.sum(), rel=1e-12)
    assert error == pytest.approx(standard_error(of, per), rel=1e-12)
    # Control: the mean of the ratios of the rows and its standard error differ.
    means = of / per
    assert abs(value / means.mean() - 1) > 1e-3
    assert abs(error / (means.std(ddof=1) / math.sqrt(len(means))) - 1) > 1e-3


def test_the_error_is_the_spread_of_repeated_evaluations():
    """Uses 4,000 evaluations of 200 rows, whose weights and losses are correlated."""
    rng = np.random.default_rng(1)
    per = rng.integers(1, 30, (4000, 200)).astype(np.float64)
    of = per * (2 + 0.02 * per + rng.normal(0, 0.3, per.shape))
    each = [LOSS({"nats": y, "weights": x}) for y, x in zip(of, per, strict=True)]
    values, errors = np.array(each).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.05)


def test_padding_counts_for_nothing_and_a_single_row_has_no_error():
    found = rows()
    cut = {name: array.ravel()[:-1] for name, array in found.items()}
    assert LOSS(found) == LOSS(cut)
    single = {name: array[:1, :1] for name, array in found.items()}
    value, error = LOSS(single)
    assert value == single["nats"][0, 0] / single["weights"][0, 0] and error is None


def test_a_metric_whose_sums_are_missing_is_left_out():
    found = rows()
    assert measure(next_token.METRICS, found) == {
        "loss": LOSS(found),
        "bits_per_byte": BITS(found),
    }
    del found["bytes"]  # as for data that is not text
    assert measure(next_token.METRICS, found) == {"loss": LOSS(found)}
    assert measure({"accuracy": Metric("share", of="right", per="weights")}, found) == {}
