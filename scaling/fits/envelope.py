"""The best model size of every compute budget from the training curves alone: Hoffmann et al.
2022, approach 1.
"""

from dataclasses import dataclass, field

import numpy as np

from scaling.fits.robust_fit import SEED, numbered
from scaling.table import Points
from scaling.validate import Unsupported

BUDGETS = 1500  # values of C at which the lowest curve is looked for, as in the paper
FEWEST_SIZES = 4
FEWEST_WINNERS = 3
MOST_DRAWS = 300
# The learning rate at a step of these does not depend on how long the run was to be. Under any
# other, a point in the middle of a run lies above the end of a run of that length.
HORIZON_FREE = ("constant", "inverse_sqrt")
SAME_LENGTH = 0.95  # a run shorter than this share of another of its size can be its mid-point


@dataclass(frozen=True)
class Envelope:
    """The lowest of all curves at each budget where it is neither the smallest nor the largest
    size, and the exponents of N* ∝ C^a, D* ∝ C^b with their draws.
    """

    flops: np.ndarray  # [k]
    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    a: float
    b: float
    draws: dict[str, np.ndarray] = field(default_factory=dict)  # "a", "b": [S]


def smooth(log_loss: np.ndarray) -> np.ndarray:
    """Evaluations averaged with their neighbours, ¼ ½ ¼; the first and the last stay."""
    if len(log_loss) < 3:
        return log_loss
    inner = 0.25 * log_loss[:-2] + 0.5 * log_loss[1:-1] + 0.25 * log_loss[2:]
    return np.concatenate([log_loss[:1], inner, log_loss[-1:]])


def on_grid(points: Points, log_c: np.ndarray) -> np.ndarray:
    """Log-loss [runs, budgets] of every smoothed curve, nan where a run has no such compute."""
    table = np.full((len(points), len(log_c)), np.nan)
    for row, curve in enumerate(points.curves):
        good = curve[(curve[:, 1] > 0) & np.isfinite(curve[:, 2]) & (curve[:, 2] > 0)]
        if len(good) < 2:
            continue
        spent = np.log(good[:, 1] * points.flops[row] / points.tokens[row])
        order = np.argsort(spent)
        table[row] = np.interp(
            log_c, spent[order], smooth(np.log(good[order, 2])), left=np.nan, right=np.nan
        )
    return table


def winners(table: np.ndarray, log_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The budgets (columns) whose lowest curve is bracketed by other sizes, and its row."""
    there = np.isfinite(table)
    some = there.any(axis=0)
    best = np.where(some, np.argmin(np.where(there, table, np.inf), axis=0), 0)
    smallest = np.where(there, log_n[:, None], np.inf).min(axis=0)
    largest = np.where(there, log_n[:, None], -np.inf).max(axis=0)
    inside = some & (log_n[best] > smallest) & (log_n[best] < largest)
    columns = np.flatnonzero(inside)
    return columns, best[columns]


def slopes(log_c: np.ndarray, log_n: np.ndarray, log_d: np.ndarray) -> tuple[float, float]:
    """The exponents of N* and D* by least squares."""
    return tuple(float(np.polyfit(log_c, y, 1)[0]) for y in (log_n, log_d))


def envelope(points: Points, draws: int = MOST_DRAWS, seed: int = SEED) -> Envelope:
    """The compute-efficient envelope. Draws resample whole runs, never points of a curve.

    Unsupported where there are no curves, or too few sizes win.
    """
    if not points.curves or sum(len(curve) > 1 for curve in points.curves) < FEWEST_SIZES:
        raise Unsupported("the runs have no training curves; approach 1 takes runs, not a table")
    ends = points.flops
    starts = [c[c[:, 1] > 0][:1, 1] / t for c, t in zip(points.curves, points.tokens, strict=True)]
    first = np.array([s[0] if len(s) else 1.0 for s in starts]) * ends
    log_c = np.linspace(np.log(first.min()), np.log(ends.max()), BUDGETS)
    log_n = np.log(points.params)
    log_per_token = np.log(points.flops / points.tokens)
    table = on_grid(points, log_c)
    columns, best = winners(table, log_n)
    sizes = len(np.unique(log_n[best]))
    if sizes < FEWEST_WINNERS:
        raise Unsupported(
            f"{sizes} sizes have the lowest curve somewhere between smaller and larger ones, and "
            f"{FEWEST_WINNERS} are needed; add sizes, or longer runs of the small ones"
        )
    a, b = slopes(log_c[columns], log_n[best], log_c[columns] - log_per_token[best])
    count, which = numbered(points.run)
    random, drawn = np.random.RandomState(seed), []
    for _ in range(min(draws, MOST_DRAWS)):
        times = np.bincount(random.randint(0, count, count), minlength=count)
        kept = np.flatnonzero(times[which])
        at, row = winners(table[kept], log_n[kept])
        row = kept[row]
        if len(np.unique(log_n[row])) >= FEWEST_WINNERS:
            drawn.append(slopes(log_c[at], log_n[row], log_c[at] - log_per_token[row]))
    pairs = np.array(drawn).reshape(-1, 2)
    return Envelope(
        flops=np.exp(log_c[columns]),
        params=points.params[best],
        tokens=np.exp(log_c[columns] - log_per_token[best]),
        loss=np.exp(table[best, columns]),
        a=a,
        b=b,
        draws={"a": pairs[:, 0], "b": pairs[:, 1]},
    )


def decaying(points: Points) -> tuple[int, tuple[str, ...]]:
    """How many runs with curves have a learning rate that was decaying towards their end, and the
    names of those schedules.
    """
    names = [
        str(facts.get("schedule", ""))
        for facts, curve in zip(points.facts, points.curves, strict=False)
        if len(curve) > 1
    ]
    found = [name for name in names if name and name not in HORIZON_FREE]
    return len(found), tuple(sorted(set(found)))


def mid_run_excess(points: Points) -> np.ndarray:
    """Log of (loss in the middle of a run / final loss of a run of the same size that ended there),
    one for each pair: what a decaying learning rate adds to the points of approach 1.
    """
    found = []
    for long in range(len(points.curves)):
        curve = points.curves[long]
        if len(curve) < 2:
            continue
        log_d, log_loss = np.log(np.maximum(curve[:, 1], 1)), np.log(curve[:, 2])
        same = np.abs(np.log(points.params / points.params[long])) < 1e-3
        short = same & (points.tokens < SAME_LENGTH * points.tokens[long])
        for row in np.flatnonzero(short & (points.tokens >= curve[0, 1])):
            middle = np.interp(np.log(points.tokens[row]), log_d, log_loss)
            found.append(middle - np.log(points.loss[row]))
    return np.array(found)
