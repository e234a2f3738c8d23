"""The best model size of every compute budget, and how it grows with compute."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaling.fits.minimise import Sample, bfgs
from scaling.fits.robust_fit import SEED, Fit, fit
from scaling.table import Points
from scaling.validate import Unsupported

SAME_BUDGET = 0.1
FEWEST_BUDGETS = 3
FEWEST_SIZES = 4
WINDOW = 5
NO_FLOOR = 1e-2  # E below this share of the lowest loss is not distinguishable from 0
MARGIN = 3.0  # how far beyond the sizes tried, in log N, a true optimum is looked for


# How a budget's minimum is found: what the lowest point of a curve through which points is.
INTERPOLATIONS = {
    "parabola": "vertices of parabolas of log-loss in log N through the {window} points around the "
    "lowest (Hoffmann et al. 2022, approach 2)",
    "akima": "lowest points of Akima splines of log-loss in log N (Porian et al. 2024)",
}
FINENESS = 401  # points at which a spline is searched


@dataclass(frozen=True)
class Minimum:
    """The curve through the losses of one budget, and its lowest point if the sizes bracket it."""

    flops: float
    rows: np.ndarray  # of the table, by size
    window: np.ndarray  # those of `rows` that the curve goes through
    interpolation: str  # a key of INTERPOLATIONS
    coefficients: np.ndarray  # of the parabola in log(N / N_lowest), highest power first
    centre: float  # log N_lowest
    reason: str  # why there is no minimum; empty where there is one
    bracket: tuple[float, ...]  # sizes to add where the minimum is not bracketed
    log_params: float = np.nan
    log_tokens: float = np.nan
    log_loss: float = np.nan


@dataclass(frozen=True)
class IsoFlop:
    """All budgets of a table, with bootstrap draws [S, budgets] of the accepted minima."""

    minima: tuple[Minimum, ...]
    spread: float  # standard deviation of one run's log-loss about its parabola
    dof: int
    draws: dict[str, np.ndarray]
    reason: str = ""  # why no budget can be read at all

    @property
    def accepted(self) -> tuple[Minimum, ...]:
        return tuple(m for m in self.minima if not m.reason)

    def array(self, name: str) -> np.ndarray:
        """One attribute of the accepted minima."""
        return np.array([getattr(m, name) for m in self.accepted])


def akima(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The Akima spline through y [n, ...] at x [n] (Akima 1970)."""
    from scipy.interpolate import Akima1DInterpolator  # takes most of a second to import

    return Akima1DInterpolator(x, y)


def budgets(flops: np.ndarray, same: float = SAME_BUDGET) -> list[np.ndarray]:
    """Rows of equal compute, within `same` from a group's smallest to its largest, by rising
    compute.
    """
    order = np.argsort(flops, kind="stable")
    groups: list[list[int]] = []
    for row in order:
        if groups and flops[row] <= flops[groups[-1][0]] * (1 + same):
            groups[-1].append(int(row))
        else:
            groups.append([int(row)])
    return [np.array(group) for group in groups]


def minimum(
    points: Points, rows: np.ndarray, window: int = WINDOW, interpolation: str = "parabola"
) -> Minimum:
    """The minimum of one budget. A lowest loss at the smallest or largest size is no minimum."""
    rows = rows[np.argsort(points.params[rows], kind="stable")]
    log_n, log_loss = np.log(points.params[rows]), np.log(points.loss[rows])
    flops = float(np.exp(np.mean(np.log(points.flops[rows]))))
    lowest = int(np.argmin(log_loss))
    centre = float(log_n[lowest])
    sizes = np.unique(log_n)
    reason, bracket = unbracketed(sizes, centre)
    around = neighbourhood(log_n, lowest, window)
    chosen = around if interpolation == "parabola" else np.arange(len(rows))
    bend = np.full(3, np.nan)
    blank = Minimum(flops, rows, rows[chosen], interpolation, bend, centre, reason, bracket)
    if reason:
        return blank
    bend = np.polyfit(log_n[around] - centre, log_loss[around], 2)
    blank = replace(blank, coefficients=bend)
    vertex = centre - bend[1] / (2 * bend[0]) if bend[0] > 0 else np.nan
    if not log_n[around].min() < vertex < log_n[around].max():
        flat = "the losses around the lowest do not bend into a minimum between the sizes tried"
        return replace(blank, coefficients=np.full(3, np.nan), reason=flat)
    if interpolation == "akima":
        (vertex,), (level,) = lowest_of_splines(log_n, log_loss[:, None])
    else:
        level = np.polyval(bend, vertex - centre)
    tokens = float(np.interp(vertex, log_n, np.log(points.tokens[rows])))
    return replace(blank, log_params=float(vertex), log_tokens=tokens, log_loss=float(level))


def neighbourhood(log_n: np.ndarray, lowest: int, window: int) -> np.ndarray:
    """The rows of the `window` sizes nearest to the lowest in log N, and of its neighbours."""
    sizes, which = np.unique(log_n, return_inverse=True)
    at = which[lowest]
    nearest = np.argsort(np.abs(sizes - sizes[at]), kind="stable")[: max(window, 3)]
    if 0 < at < len(sizes) - 1 and not nearest.min() < at < nearest.max():
        nearest = np.array([at - 1, at, at + 1, *nearest[:2]])
    return np.flatnonzero(np.isin(which, nearest))


def lowest_of_splines(log_n: np.ndarray, log_loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the Akima splines through log-losses [n, S] at log N [n] are lowest, and how low: [S]
    each. Runs of one size are averaged.
    """
    sizes, which = np.unique(log_n, return_inverse=True)
    mean = np.stack([log_loss[which == k].mean(axis=0) for k in range(len(sizes))])
    fine = np.linspace(sizes[0], sizes[-1], FINENESS)
    curves = akima(sizes, mean)(fine)
    at = curves.argmin(axis=0)
    return fine[at], curves[at, np.arange(curves.shape[1])]


def unbracketed(sizes: np.ndarray, lowest: float) -> tuple[str, tuple[float, ...]]:
    """Why sizes (log N, sorted) do not bracket their lowest loss, and the two sizes that would
    help.
    """
    if len(sizes) < FEWEST_SIZES:
        return f"{len(sizes)} sizes, and a minimum takes at least {FEWEST_SIZES}", ()
    step = float(np.median(np.diff(sizes)))
    for side, edge, sign in (("smallest", sizes[0], -1), ("largest", sizes[-1], 1)):
        if lowest == edge:
            add = tuple(float(np.exp(edge + sign * step * k)) for k in (1, 2))
            text = f"the lowest loss is at the {side} size, N = {np.exp(edge):.3g}"
            return f"{text}; add sizes near {add[0]:.2g} and {add[1]:.2g} to bracket it", add
    return "", ()


def isoflop(
    points: Points,
    draws: int = 1000,
    seed: int = SEED,
    window: int = WINDOW,
    interpolation: str = "parabola",
) -> IsoFlop:
    """The minima of all budgets of at least two sizes, with noise drawn again `draws` times.

    The noise of a run is the spread of the points about the parabolas, with their degrees of
    freedom taken off; all budgets share it, and in every draw its uncertainty, sqrt(dof /
    chi2_dof), as in Student's t. Without freedom it is the median recorded standard error, and
    without that either there are no draws. The standard error of an evaluation is no floor of the
    spread: runs that are evaluated on one text share most of it, and it cancels in differences.
    """
    try:
        points.require(("params", "tokens", "flops", "loss"), "iso-FLOP minima")
    except Unsupported as error:
        return IsoFlop((), 0.0, 0, {}, str(error))
    groups = [rows for rows in budgets(points.flops) if len(np.unique(points.params[rows])) > 1]
    minima = tuple(minimum(points, rows, window, interpolation) for rows in groups)
    accepted = [m for m in minima if not m.reason]
    squares, dof = 0.0, 0
    for m in accepted:
        rows = m.rows[neighbourhood(np.log(points.params[m.rows]), lowest_row(points, m), window)]
        bend = np.polyval(m.coefficients, np.log(points.params[rows]) - m.centre)
        residual = np.log(points.loss[rows]) - bend
        squares, dof = squares + float((residual**2).sum()), dof + len(residual) - 3
    errors = points.loss_se / points.loss
    errors = errors[np.isfinite(errors)]
    spread = np.sqrt(squares / dof) if dof else np.median(errors) if len(errors) else 0.0
    draws = draws if dof or len(errors) else 0
    random = np.random.default_rng(seed)
    scale = spread * (np.sqrt(dof / random.chisquare(dof, draws)) if dof else np.ones(draws))
    drawn = [redraw(points, m, scale, random) for m in accepted]
    names = ("log_params", "log_tokens", "log_loss")
    stacked = {n: np.stack([d[i] for d in drawn], axis=1) for i, n in enumerate(names) if drawn}
    return IsoFlop(minima, float(spread), dof, stacked)


def lowest_row(points: Points, m: Minimum) -> int:
    """Which of a budget's rows has the lowest loss."""
    return int(np.argmin(points.loss[m.rows]))


def curve(points: Points, m: Minimum, log_params: np.ndarray) -> np.ndarray:
    """The log-loss of a budget's curve at given log N."""
    if m.interpolation == "parabola":
        return np.polyval(m.coefficients, log_params - m.centre)
    log_n = np.log(points.params[m.window])
    sizes, which = np.unique(log_n, return_inverse=True)
    mean = np.bincount(which, np.log(points.loss[m.window])) / np.bincount(which)
    return akima(sizes, mean)(log_params)


def redraw(
    points: Points, m: Minimum, scale: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws of one minimum's log N, log D and log-loss under new noise of its runs, of standard
    deviation `scale` [S].
    """
    log_n = np.log(points.params[m.window])
    noise = random.standard_normal((len(log_n), len(scale))) * scale
    redrawn = curve(points, m, log_n)[:, None] + noise
    if m.interpolation == "akima":
        at, level = lowest_of_splines(log_n, redrawn)
    else:
        at, level = lowest_of_parabolas(log_n - m.centre, redrawn)
        at = at + m.centre
    tokens = np.interp(at, np.log(points.params[m.rows]), np.log(points.tokens[m.rows]))
    return at, tokens, level


def lowest_of_parabolas(x: np.ndarray, log_loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the parabolas through log-losses [n, S] at x [n] are lowest, and how low: [S] each.

    A parabola whose vertex lies outside the points, or is a maximum, takes the edge with the lower
    loss: it means nothing beyond the points that it was drawn through.
    """
    bend, slope, level = np.linalg.pinv(np.vander(x, 3)) @ log_loss
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(bend > 0, -slope / (2 * bend), np.where(slope > 0, x.min(), x.max()))
    at = np.clip(at, x.min(), x.max())
    return at, bend * at**2 + slope * at + level


def exponents_known(found: IsoFlop) -> bool:
    """Whether enough minima are bracketed for exponents."""
    return len(found.accepted) >= FEWEST_BUDGETS


def exponents(found: IsoFlop) -> dict[str, tuple[float, float, np.ndarray, np.ndarray]]:
    """For N* ('a') and D* ('b'): exponent, log of the coefficient, and draws of both. N* = k C^a.

    Unsupported where fewer than FEWEST_BUDGETS minima are known.
    """
    if not exponents_known(found):
        raise Unsupported(refusal(found))
    log_c = np.log(found.array("flops"))
    design = np.vander(log_c, 2)
    solve = np.linalg.pinv(design)
    answer = {}
    for letter, name in (("a", "log_params"), ("b", "log_tokens")):
        slope, intercept = solve @ found.array(name)
        slopes, intercepts = solve @ found.draws[name].T
        answer[letter] = (float(slope), float(intercept), slopes, intercepts)
    return answer


def refusal(found: IsoFlop) -> str:
    """Why there are no exponents, naming what every rejected budget lacks."""
    if found.reason:
        return found.reason
    wanting = [f"C = {m.flops:.2g}: {m.reason}" for m in found.minima if m.reason]
    head = (
        f"{len(found.accepted)} budgets with a bracketed minimum, and {FEWEST_BUDGETS} are needed"
    )
    return head + ("; " + "; ".join(wanting[:4]) if wanting else "")


def frontier(found: IsoFlop) -> tuple[Fit, np.ndarray]:
    """L(C) = E + K C^-γ through the minima's losses, and its coordinates for every draw of them.

    Unsupported where the minima are too few, or do not bend: then E is indistinguishable from 0.
    """
    if not exponents_known(found):
        raise Unsupported(
            found.reason
            or f"{len(found.accepted)} bracketed minima, and {FEWEST_BUDGETS} are needed"
        )
    columns = {"flops": found.array("flops")}
    fitted = fit("frontier", columns, np.exp(found.array("log_loss")), objective="squares")
    constants = fitted.constants()
    if not (
        constants["E"] > NO_FLOOR * np.exp(found.array("log_loss").min()) and constants["gamma"] > 0
    ):
        raise Unsupported(
            "the lowest losses fall as a straight line in log-log, or faster: E is "
            "indistinguishable from 0; add budgets over a wider range"
        )
    drawn = Sample(found.draws["log_loss"], fitted.sample.weights)
    theta = np.tile(fitted.theta, (len(drawn.log_loss), 1))
    return fitted, bfgs(fitted.problem, theta, drawn)[0]


def bias(
    points: Points, found: IsoFlop, loss: Callable[[Points], np.ndarray], window: int = WINDOW
) -> dict[str, Any]:
    """What the grid of sizes itself does to the minima: each budget's optimum under a known law,
    as found at the very sizes that were run and without noise, against the true one.

    Parabolas through wide grids, and grids off the centre, are biased: the true curve is no
    parabola, and its two flanks weigh unequally. `shifts` are log(found / true); `a` is what they
    add to the exponent of N*(C).

    """
    exact = replace(points, loss=loss(points), loss_se=np.full(len(points), np.nan))
    shifts = []
    for m in found.accepted:
        again = minimum(exact, m.rows, window, m.interpolation)
        log_n, log_d = np.log(points.params[m.rows]), np.log(points.tokens[m.rows])
        fine = np.linspace(log_n.min() - MARGIN, log_n.max() + MARGIN, 40 * FINENESS)
        spent = np.poly1d(np.polyfit(log_n, log_d, 1))
        n, d = np.exp(fine), np.exp(spent(fine))
        best = fine[np.argmin(loss(along(points, n, d, m.flops)))]
        shifts.append(again.log_params - best)
    known = np.isfinite(shifts)
    log_c = np.log(found.array("flops"))
    slope = np.polyfit(log_c[known], np.array(shifts)[known], 1)[0] if known.sum() > 1 else np.nan
    return {"shifts": shifts, "a": float(slope)}


def along(points: Points, params: np.ndarray, tokens: np.ndarray, flops: float) -> Points:
    """Points of one budget at other sizes; only what laws read is filled in."""
    blank = np.full(len(params), np.nan)
    return Points(
        run=blank.astype(str),
        params=params,
        tokens=tokens,
        flops=np.full(len(params), flops),
        loss=blank,
        loss_se=blank,
        holdout=np.zeros(len(params), bool),
        source=points.source,
    )
