"""The configurations that are indistinguishable from the best, and the seeds to tell them apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from scaling.ranking.configurations import Configuration
from scaling.ranking.seed_noise import SeedNoise, seed_noise

POWER = 0.8  # of the test that `more_seeds` plans
MOST_SEEDS = 1000  # more than anyone trains


@dataclass(frozen=True)
class BestSet:
    """`p` [n] are adjusted p-values of "no worse than the best", nan for the best itself and where
    nothing can be said; `member` [n] is True, False or None (unknown). `best` is the place
    of the best configuration with several seeds, or None. `more_seeds` is 0 where the
    best stands alone, None if more than MOST_SEEDS or unknown."""

    p: np.ndarray
    member: tuple[bool | None, ...]
    best: int | None
    more_seeds: int | None
    test: str | None  # Welch | paired


def best_set(
    found: Sequence[Configuration], level: float, sign: float = 1.0, families: int = 1
) -> BestSet:
    """Compares the configurations with the best of them; only those with several seeds take part.
    `sign` is -1 for a metric that is better if higher; p-values are multiplied by `families`.

    "i is as good as any" is tested by one-sided t tests of i against all m - 1 others. The test
    against the lowest mean stands for all, times m - 1, which pays for that mean having been
    selected (a Bonferroni test of the intersection, Berger 1982). Holm's procedure over the m
    configurations then bounds the probability of any false exclusion by 1 - `level`, so the set
    contains the true best, and all that tie with it, with probability `level`.
    """
    many = [i for i, one in enumerate(found) if len(one.trials) > 1]
    p, member = np.full(len(found), np.nan), [None] * len(found)
    if not many:
        return BestSet(p, tuple(member), None, None, None)
    noise = seed_noise([found[i] for i in many], sign)
    best, count = int(noise.means.argmin()), len(many)
    each = np.minimum(1.0, max(count - 1, 1) * noise.p_values(best))
    adjusted = np.minimum(1.0, families * holm(each))
    inside = adjusted > 1 - level
    for place, i in enumerate(many):
        p[i], member[i] = adjusted[place], bool(inside[place])
    p[many[best]] = np.nan
    more = _more_seeds(noise, best, inside, (1 - level) / families)
    return BestSet(p, tuple(member), many[best], more, "paired" if noise.paired else "Welch")


def holm(p: np.ndarray) -> np.ndarray:
    """P-values [m] adjusted by Holm 1979, so that rejecting those of at most α makes any false
    rejection with probability α at most."""
    order, count = np.argsort(p, kind="stable"), len(p)
    stepped = np.maximum.accumulate(np.minimum(1.0, p[order] * (count - np.arange(count))))
    adjusted = np.empty(count)
    adjusted[order] = stepped
    return adjusted


def _more_seeds(noise: SeedNoise, best: int, inside: np.ndarray, alpha: float) -> int | None:
    """Seeds to add to each configuration so that the same procedure tells the best from the nearest
    of the others with probability POWER, if they differ by as much as measured."""
    rivals = [i for i in np.flatnonzero(inside) if i != best]
    if not rivals:
        return 0
    nearest = min(rivals, key=lambda i: noise.means[i])
    gap = noise.means[nearest] - noise.means[best]
    now = int(min(noise.counts[best], noise.counts[nearest]))
    seeds = np.arange(now, now + MOST_SEEDS + 1)
    error = np.sqrt((noise.variances[best] + noise.variances[nearest]) / seeds)
    freedom = (noise.freedom[best] + noise.freedom[nearest]) * seeds / now
    alpha /= int(inside.sum()) * max(len(noise.means) - 1, 1)
    enough = gap > error * (stdtrit(freedom, 1 - alpha) + stdtrit(freedom, POWER))
    return int(enough.argmax()) if enough.any() else None
