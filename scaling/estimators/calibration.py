"""Whether confidence is worth anything: calibration, selective answering, separation.

Confidences are probabilities in [0, 1]; `right` says which answers are right. Answers of equal
confidence have no order: each counts as the share of right answers among them.
"""

from typing import Any

import numpy as np
from scipy import stats

from scaling.intervals import wilson

BINS = 10


def _sorted(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidences [N], rising, and the share of right answers among those of each confidence."""
    order = np.argsort(confidence, kind="stable")
    c_N, right_N = np.asarray(confidence, float)[order], np.asarray(right, float)[order]
    _, first, count = np.unique(c_N, return_index=True, return_counts=True)
    return c_N, np.repeat(np.add.reduceat(right_N, first) / count, count)


def bins(confidence: np.ndarray, right: np.ndarray, n_bins: int = BINS) -> list[dict[str, Any]]:
    """The points of a reliability diagram: answers in bins of equal size (equal mass), from the
    least confident on. Keys: count, confidence (mean), accuracy with its Wilson interval lo, hi,
    which takes the answers for independent."""
    found = []
    parts = zip(*(np.array_split(x, n_bins) for x in _sorted(confidence, right)), strict=True)
    for c, share in parts:
        if not (n := len(c)):
            continue
        p = float(share.mean())
        low, high = wilson(p, n)
        found.append({"count": n, "confidence": float(c.mean()), "accuracy": p}
                     | {"lo": low, "hi": high})  # fmt: skip
    return found


def expected_calibration_error(
    confidence: np.ndarray, right: np.ndarray, n_bins: int = BINS
) -> float:
    """The mean of |accuracy - confidence| over bins of equal mass, by the answers in them (Naeini
    et al. 2015; equal mass as Nixon et al. 2019). Above 0 even for perfect calibration: see
    `perfectly_calibrated`."""
    parts = zip(*(np.array_split(x, n_bins) for x in _sorted(confidence, right)), strict=True)
    gaps = [abs(c.sum() - share.sum()) for c, share in parts if len(c)]
    return float(np.sum(gaps) / len(confidence))


def perfectly_calibrated(
    confidence: np.ndarray, unit: np.ndarray, n_bins: int = BINS, draws: int = 200, seed: int = 0
) -> np.ndarray:
    """ECEs [draws] that a perfectly calibrated model of these confidences would have by chance.
    Answers of one `unit` (numbers from 0 on) are right together as far as their confidences allow,
    so this is an upper bound of chance."""
    rng, n = np.random.default_rng(seed), int(np.max(unit)) + 1
    uniform = rng.random((draws, n))[:, unit]
    return np.array(
        [expected_calibration_error(confidence, u < confidence, n_bins) for u in uniform]
    )


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(coverage [N], risk [N]): answering only the k most confident questions, the share answered,
    k / N, and the share of wrong answers among them (Geifman & El-Yaniv 2017)."""
    _, share_N = _sorted(confidence, right)
    k_N = np.arange(1, len(share_N) + 1)
    return k_N / len(share_N), np.cumsum(1 - share_N[::-1]) / k_N


def area_under_risk_coverage(confidence: np.ndarray, right: np.ndarray) -> float:
    """AURC, the mean risk over all coverages; the error rate if confidence says nothing."""
    return float(risk_coverage(confidence, right)[1].mean())


def best_area(right: np.ndarray) -> float:
    """The AURC of a confidence that ranks every right answer above every wrong one."""
    return area_under_risk_coverage(np.asarray(right, float), right)


def coverage_at(confidence: np.ndarray, right: np.ndarray, risk: float) -> float:
    """The largest share of the questions that can be answered with at most this risk."""
    coverage_N, risk_N = risk_coverage(confidence, right)
    # Among answers of equal confidence none can be chosen, so only whole levels count.
    c_N = np.sort(np.asarray(confidence, float))[::-1]
    whole = np.append(c_N[1:] != c_N[:-1], True)
    fits = whole & (risk_N <= risk + 1e-12)
    return float(coverage_N[fits].max()) if fits.any() else 0.0


def area_under_roc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive has a higher score than a negative, ties counted half (Mann &
    Whitney 1947); None without both."""
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return None
    ranks = stats.rankdata(score)
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))
