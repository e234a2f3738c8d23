"""pass@k: the probability that at least one of k answers to a prompt is right, without bias.

P prompts, S samples of each
"""

from typing import Any

import numpy as np

from scaling.settings import LEVEL

DRAWS = 2000  # bootstrap draws of prompts


def pass_at_k(samples: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """1 - C(n - c, k) / C(n, k) for n samples of which c are right: the share of the subsets of k
    samples that hold a right one. Chen et al. 2021, arXiv:2107.03374, eq. 1; the product of
    appendix A, which does not overflow.

    `samples` and `right` are counts [P]. Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    n, c = np.broadcast_arrays(np.asarray(samples), np.asarray(right))
    if not ((c >= 0) & (c <= n)).all():
        raise ValueError(f"right={c.tolist()} must lie between 0 and samples={n.tolist()}")
    if not 1 <= k <= n.min():
        raise ValueError(f"k={k} needs at least {k} samples of each prompt, but one has {n.min()}")
    values = np.empty(n.shape)
    for place in np.ndindex(n.shape):
        first = n[place] - c[place] + 1
        # A factor of 0, where fewer than k samples are wrong, makes the answer 1.
        factors = 1 - k / np.maximum(np.arange(first, n[place] + 1), k)
        values[place] = 1 - np.prod(factors)
    return values


def estimate(samples: np.ndarray, right: np.ndarray, k: int, seed: int = 0) -> dict[str, Any]:
    """The mean of pass@k over prompts, its standard error, and an interval [lo, hi] of LEVEL.

    Prompts are the independent units, so the error holds the noise of the samples too. The interval
    is a bootstrap over prompts. If every prompt is at 0, or every one at 1, no draw differs; the
    interval then ends at the exact bound 1 - (1 - level)^(1/P) of Clopper & Pearson 1934.
    """
    values_P = pass_at_k(samples, right, k)
    count, mean = len(values_P), float(values_P.mean())
    error = float(values_P.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    drawn = np.random.default_rng(seed).integers(count, size=(DRAWS, count))
    low, high = np.percentile(values_P[drawn].mean(1), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    unseen = 1 - (1 - LEVEL) ** (1 / count)
    if mean in (0.0, 1.0):
        low, high = (0.0, unseen) if mean == 0 else (1 - unseen, 1.0)
    return {"k": k, "value": mean, "se": error, "lo": float(low), "hi": float(high)}
