"""WEAT, the word-embedding association test: Caliskan, Bryson & Narayanan 2017.

With s(w) the mean cosine of a word w with the attributes A minus that with the attributes B,

    statistic    the mean of s over the targets X minus that over the targets Y
    effect size  d = statistic / standard deviation of s over X and Y together
    p            the share of divisions of X and Y together, into sets of these sizes, with a
                 statistic at least as large

The paper sums s instead of taking means, which gives the same p for sets of equal size, and counts
statistics that are larger, not equal. Counting equal ones too, p is never 0.
"""

import itertools
import math
from typing import Any

import numpy as np

EXACT_DIVISIONS = 200_000
DRAWS = 20_000


def weat(
    cosines: np.ndarray, n_x: int, n_a: int, draws: int = DRAWS, seed: int = 0
) -> dict[str, Any]:
    """The test of cosines [X + Y, A + B], whose first `n_x` rows are X and first `n_a` columns A.

    Keys: effect_size, statistic, p, exact, divisions (those that were tried), and by_word, s of
    each target. All divisions are tried if there are at most EXACT_DIVISIONS, otherwise `draws`
    drawn ones and the one observed. ValueError for a set that is too small.
    """
    cosines = np.asarray(cosines, float)
    rows, columns = cosines.shape
    if min(n_x, rows - n_x) < 2 or min(n_a, columns - n_a) < 1:
        raise ValueError(
            f"the targets have {n_x} and {rows - n_x} words and the attributes {n_a} and "
            f"{columns - n_a}; each set of targets needs 2, each of attributes 1"
        )
    s_W = cosines[:, :n_a].mean(1) - cosines[:, n_a:].mean(1)
    statistic = float(s_W[:n_x].mean() - s_W[n_x:].mean())
    deviation = float(s_W.std(ddof=1))
    exact = math.comb(rows, n_x) <= EXACT_DIVISIONS
    if exact:
        chosen = np.array(list(itertools.combinations(range(rows), n_x)))
    else:
        rng = np.random.default_rng(seed)
        order = rng.permuted(np.tile(np.arange(rows), (draws, 1)), axis=1)
        chosen = np.concatenate([np.arange(n_x)[None], order[:, :n_x]])
    of_x = s_W[chosen].sum(1)
    statistics = of_x / n_x - (s_W.sum() - of_x) / (rows - n_x)
    p = float(np.mean(statistics >= statistic - 1e-9 * max(deviation, 1e-30)))
    return {
        "effect_size": statistic / deviation if deviation > 1e-12 else None,
        "statistic": statistic,
        "p": p,
        "exact": exact,
        "divisions": len(chosen),
        "by_word": s_W.tolist(),
    }
