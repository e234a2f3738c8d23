"""Compute-optimal sizes from the envelope of training curves: Hoffmann et al. 2022, approach 1."""

from dataclasses import dataclass, field

import numpy as np

from scaling.fits.robust_fit import SEED, numbered
from scaling.table import Points
from scaling.validate import Unsupported

BUDGETS = 1500  # values of C at which the lowest curve is determined, as in the paper
FEWEST_SIZES = 4
FEWEST_WINNERS = 3
MOST_DRAWS = 300
# With these schedules the learning rate at a step does not depend on the length of the run. With
# any other, the loss in the middle of a run is above the final loss of a run of that length.
HORIZON_FREE = ("constant", "inverse_sqrt")
SAME_LENGTH = 0.95  # a run shorter than this share of another is compared with its mid-run loss


@dataclass(frozen=True)
class Envelope:
    """The lowest curve at each budget where its size is neither the smallest nor the largest, and
    the exponents of N* ∝ C^a, D* ∝ C^b with their draws.
    """

    flops: np.ndarray  # [k]
    params: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray
    a: float
    b: float
    draws: dict[str, np.ndarray] = field(default_factory=dict)  # "a", "b": [S]


def smooth(log_loss: np.ndarray) -> np.ndarray:
    """Averages each evaluation with its neighbours, weights ¼ ½ ¼; keeps the first and the last."""
    if len(log_loss) < 3:
        return log_loss
    inner = 0.25 * log_loss[:-2] + 0.5 * log_loss[1:-1] + 0.25 * log_loss[2:]
    return np.concatenate([log_loss[:1], inner, log_loss[-1:]])


def on_grid(points: Points, log_c: np.ndarray) -> np.ndarray:
    """Log-loss [runs, budgets] of the smoothed curves; nan outside the compute of a run."""
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
    known = np.isfinite(table)
    any_known = known.any(axis=0)
    best = np.where(any_known, np.argmin(np.where(known, table, np.inf), axis=0), 0)
    smallest = np.where(known, log_n[:, None], np.inf).min(axis=0)
    largest = np.where(known, log_n[:, None], -np.inf).max(axis=0)
    bracketed = any_known & (log_n[best] > smallest) & (log_n[best] < largest)
    columns = np.flatnonzero(bracketed)
    return columns, best[columns]


def slopes(log_c: np.ndarray, log_n: np.ndarray, log_d: np.ndarray) -> tuple[float, float]:
    """The exponents of N* and D* by least squares."""
    return tuple(float(np.polyfit(log_c, y, 1)[0]) for y in (log_n, log_d))


def envelope(points: Points, draws: int = MOST_DRAWS, seed: int = SEED) -> Envelope:
    """The compute-efficient envelope. Draws resample whole runs, not points of a curve.

    Raises Unsupported if there are no curves, or if too few sizes are the lowest at some budget.
    """
    if not points.curves or sum(len(curve) > 1 for curve in points.curves) < FEWEST_SIZES:
        raise Unsupported("the runs have no training curves; approach 1 needs runs, not a table")
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
            f"{sizes} sizes have the lowest curve at a budget with smaller and larger sizes; "
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
    """The number of runs with curves whose learning rate decays towards the end of the run, and the
    names of their schedules.
    """
    names = [
        str(facts.get("schedule", ""))
        for facts, curve in zip(points.facts, points.curves, strict=False)
        if len(curve) > 1
    ]
    schedules = [name for name in names if name and name not in HORIZON_FREE]
    return len(schedules), tuple(sorted(set(schedules)))


def mid_run_excess(points: Points) -> np.ndarray:
    """Log of (mid-run loss / final loss of a run of the same size that ended at that point), one
    for each pair: by how much a decaying learning rate raises the points of approach 1.
    """
    excess = []
    for long in range(len(points.curves)):
        curve = points.curves[long]
        if len(curve) < 2:
            continue
        log_d, log_loss = np.log(np.maximum(curve[:, 1], 1)), np.log(curve[:, 2])
        same = np.abs(np.log(points.params / points.params[long])) < 1e-3
        short = same & (points.tokens < SAME_LENGTH * points.tokens[long])
        for row in np.flatnonzero(short & (points.tokens >= curve[0, 1])):
            middle = np.interp(np.log(points.tokens[row]), log_d, log_loss)
            excess.append(middle - np.log(points.loss[row]))
    return np.array(excess)
