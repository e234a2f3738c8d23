"""Tests of what probes estimate: against hand computations, planted effects and simulations."""

import itertools

import numpy as np
import pytest
from scipy import stats

from scaling.estimators import association, calibration, resampling


def test_weat_by_hand():
    # Cosines with one word of A and one of B; s is their difference: 2, 1 for X and -1, 0 for Y.
    cosines = np.array([[2.0, 0.0], [1.5, 0.5], [0.0, 1.0], [0.5, 0.5]])
    found = association.weat(cosines, 2, 1)
    assert found["by_word"] == [2.0, 1.0, -1.0, 0.0]
    assert found["statistic"] == pytest.approx(1.5 - (-0.5))
    # Mean .5; squared deviations 2.25 + .25 + 2.25 + .25 = 5; over three: 1.6667.
    assert found["effect_size"] == pytest.approx(2.0 / np.sqrt(5 / 3))
    # Of the six divisions only the one observed reaches the statistic.
    assert found["exact"] and found["divisions"] == 6 and found["p"] == pytest.approx(1 / 6)


def vectors(shift: float, n: int = 8, seed: int = 0) -> np.ndarray:
    """Cosines [2 n, 2 n] of random vectors; those of X lean by `shift` towards A, of Y towards
    B."""
    rng, axis = np.random.default_rng(seed), np.eye(50)[0]
    lean = np.repeat([shift, -shift], n)[:, None] * axis
    targets = rng.normal(size=(2 * n, 50)) / 7 + lean
    attributes = rng.normal(size=(2 * n, 50)) / 7 + np.repeat([1, -1], n)[:, None] * axis
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    return unit(targets) @ unit(attributes).T


def test_weat_finds_a_planted_bias_and_none_where_there_is_none():
    biased = association.weat(vectors(0.5), 8, 8)
    assert biased["effect_size"] > 1.5 and biased["p"] < 0.001 and biased["divisions"] == 12870
    turned = association.weat(vectors(-0.5), 8, 8)
    assert turned["effect_size"] < -1.5 and turned["p"] > 0.999
    ps = [association.weat(vectors(0.0, 4, seed), 4, 4)["p"] for seed in range(60)]
    assert np.mean(np.array(ps) < 0.1) < 0.25 and stats.kstest(ps, "uniform").pvalue > 0.001


def test_drawn_divisions_give_nearly_the_exact_p(monkeypatch):
    cosines = vectors(0.02, seed=5)
    exact = association.weat(cosines, 8, 8)
    monkeypatch.setattr(association, "EXACT_DIVISIONS", 10)
    drawn = association.weat(cosines, 8, 8, draws=4000)
    assert not drawn["exact"] and drawn["divisions"] == 4001
    assert drawn["p"] == pytest.approx(exact["p"], abs=0.03) and 0.01 < exact["p"] < 0.99


def test_weat_without_spread_or_words():
    assert association.weat(np.ones((4, 2)), 2, 1)["effect_size"] is None
    with pytest.raises(ValueError, match="1 and 3 words"):
        association.weat(np.ones((4, 2)), 1, 1)


def test_signs_are_flipped_by_hand():
    found = resampling.mean_of_differences([1.0, 2.0, 3.0], [0, 1, 2])
    # Of eight assignments of signs, +++ and --- reach a mean of 2.
    assert found["value"] == 2.0 and found["p"] == pytest.approx(2 / 8) and found["exact"]
    assert found["positive"] == 1.0
    # Pairs of one group are one unit: their mean.
    grouped = resampling.mean_of_differences([0.0, 2.0, 2.0, 3.0], ["a", "a", "b", "c"])
    assert grouped["value"] == 2.0 and grouped["units"] == 3
    alone = resampling.mean_of_differences([1.0], [0])
    assert alone["lo"] is None and alone["p"] == 1.0


def test_the_interval_of_a_mean_holds_the_truth_as_often_as_it_says():
    rng, inside, ps = np.random.default_rng(0), [], []
    for seed in range(200):
        found = resampling.mean_of_differences(rng.normal(size=9), range(9), 400, seed)
        inside.append(found["lo"] <= 0 <= found["hi"])
        ps.append(found["p"])
    assert 0.84 < np.mean(inside) < 0.96
    assert stats.kstest(ps, "uniform").pvalue > 0.001
    many = resampling.mean_of_differences(rng.normal(1, 1, 40), range(40), 1000)
    assert not many["exact"] and many["p"] == pytest.approx(1 / 1001)


def test_groups_are_drawn_whole():
    """Five groups of twenty equal values: rows drawn one by one would hide their spread."""
    values = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0], 20)
    mean = lambda rows: {"mean": float(values[rows].mean())}  # noqa: E731
    whole = resampling.bootstrap(mean, np.repeat(range(5), 20), 500)["mean"]
    single = resampling.bootstrap(mean, range(100), 500)["mean"]
    assert whole["hi"] - whole["lo"] > 3 * (single["hi"] - single["lo"])


def test_calibration_by_hand():
    confidence = np.array([0.6, 0.8, 0.9, 0.5])
    right = np.array([1, 0, 1, 0])
    # Bins of two: (.5, .6) with one right, (.8, .9) with one right.
    assert calibration.expected_calibration_error(confidence, right, 2) == pytest.approx(
        (abs(1.1 - 1) + abs(1.7 - 1)) / 4
    )
    low, high = calibration.bins(confidence, right, 2)
    assert (low["confidence"], low["accuracy"], high["count"]) == (pytest.approx(0.55), 0.5, 2)
    assert low["lo"] < 0.5 < low["hi"]


def test_equal_confidences_have_no_order():
    confidence, right = np.full(6, 0.5), np.array([1, 1, 1, 0, 0, 0])
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 97):
        of = right[list(order)]
        assert calibration.expected_calibration_error(confidence, of, 3) == pytest.approx(0)
        assert calibration.area_under_risk_coverage(confidence, of) == pytest.approx(0.5)
    assert calibration.coverage_at(confidence, right, 0.4) == 0.0
    assert calibration.coverage_at(confidence, right, 0.5) == 1.0


def test_selective_answering_by_hand():
    confidence, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0])
    coverage, risk = calibration.risk_coverage(confidence, right)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert calibration.area_under_risk_coverage(confidence, right) == pytest.approx(1 / 3)
    assert calibration.best_area(right) == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert calibration.coverage_at(confidence, right, 0.34) == 0.75


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(5, size=40), rng.random(40) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive]]
    assert calibration.area_under_roc(score, positive) == pytest.approx(np.mean(pairs))
    assert calibration.area_under_roc(score, np.ones(40, bool)) is None


def test_what_perfect_calibration_has_by_chance():
    """A calibrated model is inside what chance gives, an overconfident one outside."""
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.2, 1.0, 1000)
    chance = calibration.perfectly_calibrated(confidence, np.arange(1000))
    good = rng.random(1000) < confidence
    bad = rng.random(1000) < confidence - 0.15
    ece = calibration.expected_calibration_error
    assert ece(confidence, good) < np.quantile(chance, 0.99)
    assert ece(confidence, bad) > 1.5 * chance.max()
    together = calibration.perfectly_calibrated(confidence, np.arange(1000) // 50)
    assert together.mean() > 1.5 * chance.mean()
