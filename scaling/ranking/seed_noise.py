"""How far a configuration's metric moves from seed to seed, estimated over all configurations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, polygamma, stdtr

from scaling.ranking.configurations import Configuration

SMALLEST = 1e-4  # of the mean variance: a variance of 0 has no logarithm
MOST_PRIOR = 6.0
"""Degrees of freedom that the common variance counts for at most. Two seeds show only gross
differences between spreads, so spreads are always taken to differ by some 30 %: trigamma(3) = .39
= 4 x .31², the variance of log s². Without this limit, 20 configurations whose spreads differ so
give false claims in 9 % of sweeps; with it in 3 %."""


@dataclass(frozen=True)
class SeedNoise:
    """What m configurations with two seeds or more show.

    `means` [m] are over `counts` [m] seeds. `variances` [m] are of one trial, each drawn towards
    that of all configurations; `freedom` [m] are their degrees of freedom, `total` those of the
    measurements themselves. Where `paired`, the means are over the seeds that all configurations
    share, and what a seed does to all of them alike is no part of the variances.
    """

    means: np.ndarray
    counts: np.ndarray
    variances: np.ndarray
    freedom: np.ndarray
    total: float
    paired: bool

    def p_values(self, best: int) -> np.ndarray:
        """One-sided p-values [m] of "no worse than the configuration `best`" by Welch's t test,
        for a metric that is better if lower."""
        gap = self.means - self.means[best]
        parts = self.variances / self.counts
        squares = parts + parts[best]
        per_part = parts**2 / self.freedom
        with np.errstate(divide="ignore", invalid="ignore"):
            freedom = np.minimum(squares**2 / (per_part + per_part[best]), self.total)
            p = stdtr(freedom, -gap / np.sqrt(squares))
        # Without any spread there is no doubt.
        return np.where(squares > 0, p, np.where(gap > 0, 0.0, 1.0))


def seed_noise(repeated: Sequence[Configuration], sign: float = 1.0) -> SeedNoise:
    """The seed noise of configurations that all have two seeds or more; `sign` times the metric is
    better if lower.

    Where all share two seeds or more, effects of seeds are removed first (a randomized block
    design; for two configurations it is the paired t test). With two or three seeds a variance of
    one's own says little, so the variances are shrunk towards their mean by as much as they look
    alike: Smyth 2004, "Linear models and empirical Bayes methods", section 6.
    """
    shared = sorted(set.intersection(*(set(c.seeds) for c in repeated)))
    paired = len(repeated) > 1 and len(shared) > 1
    if paired:
        table = sign * np.array([[c.measured[c.seeds.index(s)] for s in shared] for c in repeated])
        means, counts = table.mean(axis=1), np.full(len(repeated), len(shared))
        rest = table - means[:, None] - table.mean(axis=0) + table.mean()
        freedom = (counts - 1) * (len(repeated) - 1) / len(repeated)
        own = (rest**2).sum(axis=1) / freedom
    else:
        means = sign * np.array([c.mean for c in repeated])
        counts = np.array([len(c.measured) for c in repeated])
        freedom = counts - 1.0
        own = np.array([c.measured.var(ddof=1) for c in repeated])
    variances, prior = moderated(own, freedom)
    total = float(freedom.sum())
    return SeedNoise(means, counts, variances, np.minimum(freedom + prior, total), total, paired)


def moderated(own: np.ndarray, freedom: np.ndarray) -> tuple[np.ndarray, float]:
    """Variances [m] drawn towards a common one, and how many degrees of freedom that one is worth
    to each: the more, the more alike they are, up to MOST_PRIOR."""
    pooled = float((own * freedom).sum() / freedom.sum())
    if pooled == 0 or len(own) < 2:
        return own, 0.0
    logs = np.log(np.maximum(own, SMALLEST * pooled)) - digamma(freedom / 2) + np.log(freedom / 2)
    excess = logs.var(ddof=1) - polygamma(1, freedom / 2).mean()
    prior, common = MOST_PRIOR, pooled
    if excess > polygamma(1, MOST_PRIOR / 2):
        prior = 2 * _inverse_trigamma(excess)
        common = np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))
    return (prior * common + freedom * own) / (prior + freedom), prior


def _inverse_trigamma(value: float) -> float:
    """The x with trigamma(x) = value, by Newton's method on its inverse (Smyth 2004, appendix)."""
    if value > 1e7:
        return 1 / np.sqrt(value)
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / polygamma(2, x)
        x += step
        if -step / x < 1e-8:
            break
    return float(x)
