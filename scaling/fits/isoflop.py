"""Iso-FLOP minima: the compute-optimal size of every budget, and its power law in compute."""

import functools
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
NO_FLOOR = 1e-2  # E below this share of the lowest loss is indistinguishable from 0
MARGIN = 3.0  # log N beyond the sizes tried within which the true optimum is searched


# The curves whose lowest point is the minimum of a budget, as the report describes them.
INTERPOLATIONS = {
    "parabola": "vertices of parabolas of log-loss in log N through the {window} points around the "
    "lowest (Hoffmann et al. 2022, approach 2)",
    "akima": "lowest points of Akima splines of log-loss in log N (Porian et al. 2024)",
}
FINENESS = 401  # points of the grid on which the minimum of a spline is searched


@dataclass(frozen=True)
class Minimum:
    """The curve through the losses of one budget, and its lowest point if the sizes bracket it."""

    flops: float
    rows: np.ndarray  # rows of the table, ordered by size
    window: np.ndarray  # those of `rows` that the curve is fitted to
    interpolation: str  # a key of INTERPOLATIONS
    coefficients: np.ndarray  # of the parabola in log(N / N_lowest), highest power first
    centre: float  # log N_lowest
    reason: str  # why there is no minimum; empty if there is one
    bracket: tuple[float, ...]  # sizes to add if the minimum is not bracketed
    log_params: float = np.nan
    log_tokens: float = np.nan
    log_loss: float = np.nan


@dataclass(frozen=True, eq=False)  # compared by identity, so that `frontier` can be cached
class IsoFlop:
    """All budgets of a table, with bootstrap draws [S, budgets] of the accepted minima."""

    minima: tuple[Minimum, ...]
    spread: float  # standard deviation of one run's log-loss about its parabola
    dof: int
    draws: dict[str, np.ndarray]
    reason: str = ""  # why the table has no iso-FLOP minima at all

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
    """Groups of rows with equal compute (up to the relative difference `same` within a group), in
    increasing order of compute.
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
    """The minimum of one budget. If the smallest or largest size has the lowest loss, there is
    none, and `reason` says so.
    """
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
    """The rows of the `window` sizes nearest in log N to that of row `lowest`, always including one
    size on either side.
    """
    sizes, which = np.unique(log_n, return_inverse=True)
    at = which[lowest]
    nearest = np.argsort(np.abs(sizes - sizes[at]), kind="stable")[: max(window, 3)]
    if 0 < at < len(sizes) - 1 and not nearest.min() < at < nearest.max():
        nearest = np.array([at - 1, at, at + 1, *nearest[:2]])
    return np.flatnonzero(np.isin(which, nearest))


def lowest_of_splines(log_n: np.ndarray, log_loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log N and log-loss [S] of the lowest points of Akima splines through log-losses [n, S] at
    log N [n]. Runs of the same size are averaged.
    """
    sizes, which = np.unique(log_n, return_inverse=True)
    mean = np.stack([log_loss[which == k].mean(axis=0) for k in range(len(sizes))])
    fine = np.linspace(sizes[0], sizes[-1], FINENESS)
    curves = akima(sizes, mean)(fine)
    at = curves.argmin(axis=0)
    return fine[at], curves[at, np.arange(curves.shape[1])]


def unbracketed(sizes: np.ndarray, lowest: float) -> tuple[str, tuple[float, ...]]:
    """Why the sizes (log N, sorted) do not bracket the minimum, and two sizes that would. '' and ()
    if they do.
    """
    if len(sizes) < FEWEST_SIZES:
        return f"{len(sizes)} sizes; a minimum needs at least {FEWEST_SIZES}", ()
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
    """The minima of all budgets with at least two sizes, and `draws` parametric bootstrap draws.

    The noise of a run is the standard deviation about the parabolas, corrected for degrees of
    freedom and pooled over budgets. Every draw scales it by sqrt(dof / chi2_dof), as in Student's
    t. Without degrees of freedom it is the median recorded standard error; without standard errors
    there are no draws. The noise may be smaller than the standard error of an evaluation: runs that
    are evaluated on the same text share most of that error, and it cancels in differences.
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
    """The index in `m.rows` of the run with the lowest loss."""
    return int(np.argmin(points.loss[m.rows]))


def curve(points: Points, m: Minimum, log_params: np.ndarray) -> np.ndarray:
    """The log-loss of a budget's curve at `log_params`."""
    if m.interpolation == "parabola":
        return np.polyval(m.coefficients, log_params - m.centre)
    log_n = np.log(points.params[m.window])
    sizes, which = np.unique(log_n, return_inverse=True)
    mean = np.bincount(which, np.log(points.loss[m.window])) / np.bincount(which)
    return akima(sizes, mean)(log_params)


def redraw(
    points: Points, m: Minimum, scale: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws [S] of log N, log D and log-loss of one minimum, with new noise of standard deviation
    `scale` [S] for every run.
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
    """The position and the log-loss [S] of the lowest points of parabolas through log-losses [n, S]
    at x [n].

    If the vertex is outside the points or is a maximum, the lowest point is at the edge with the
    lower loss: a parabola is not valid beyond the points that it was fitted to.
    """
    bend, slope, level = np.linalg.pinv(np.vander(x, 3)) @ log_loss
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(bend > 0, -slope / (2 * bend), np.where(slope > 0, x.min(), x.max()))
    at = np.clip(at, x.min(), x.max())
    return at, bend * at**2 + slope * at + level


def exponents_known(isoflop_fit: IsoFlop) -> bool:
    """Whether enough minima are bracketed for exponents."""
    return len(isoflop_fit.accepted) >= FEWEST_BUDGETS


def exponents(isoflop_fit: IsoFlop) -> dict[str, tuple[float, float, np.ndarray, np.ndarray]]:
    """For N* ('a') and D* ('b'): the exponent, log k, and draws of both, where N* = k C^a.

    Raises Unsupported if fewer than FEWEST_BUDGETS minima are bracketed.
    """
    if not exponents_known(isoflop_fit):
        raise Unsupported(refusal(isoflop_fit))
    log_c = np.log(isoflop_fit.array("flops"))
    design = np.vander(log_c, 2)
    solve = np.linalg.pinv(design)
    fits = {}
    for letter, name in (("a", "log_params"), ("b", "log_tokens")):
        slope, intercept = solve @ isoflop_fit.array(name)
        slopes, intercepts = solve @ isoflop_fit.draws[name].T
        fits[letter] = (float(slope), float(intercept), slopes, intercepts)
    return fits


def refusal(isoflop_fit: IsoFlop) -> str:
    """Why there are no exponents, with the reasons of the rejected budgets."""
    if isoflop_fit.reason:
        return isoflop_fit.reason
    reasons = [f"C = {m.flops:.2g}: {m.reason}" for m in isoflop_fit.minima if m.reason]
    count = len(isoflop_fit.accepted)
    head = f"{count} budgets with a bracketed minimum; {FEWEST_BUDGETS} are needed"
    return "; ".join([head, *reasons[:4]])


@functools.lru_cache(maxsize=1)
def frontier(isoflop_fit: IsoFlop) -> tuple[Fit, np.ndarray]:
    """L(C) = E + K C^-γ fitted to the minima, and its coordinates for every draw of the minima.

    Raises Unsupported if there are too few minima, or if E is indistinguishable from 0.
    """
    if not exponents_known(isoflop_fit):
        raise Unsupported(
            isoflop_fit.reason
            or f"{len(isoflop_fit.accepted)} bracketed minima; {FEWEST_BUDGETS} are needed"
        )
    columns = {"flops": isoflop_fit.array("flops")}
    fitted = fit("frontier", columns, np.exp(isoflop_fit.array("log_loss")), objective="squares")
    constants = fitted.constants()
    if not (
        constants["E"] > NO_FLOOR * np.exp(isoflop_fit.array("log_loss").min())
        and constants["gamma"] > 0
    ):
        raise Unsupported(
            "the lowest losses are a straight line in log-log, or fall faster: E is "
            "indistinguishable from 0; add budgets over a wider range"
        )
    drawn = Sample(isoflop_fit.draws["log_loss"], fitted.sample.weights)
    theta = np.tile(fitted.theta, (len(drawn.log_loss), 1))
    return fitted, bfgs(fitted.problem, theta, drawn)[0]


def bias(
    points: Points, isoflop_fit: IsoFlop, loss: Callable[[Points], np.ndarray], window: int = WINDOW
) -> dict[str, Any]:
    """The bias of the minima from the grid of sizes: each budget's optimum under a known law, as
    estimated without noise from the sizes that were run, compared with the true optimum.

    The true curve is not a parabola, so parabolas through wide or off-centre grids are biased.
    `shifts` are log(estimated / true); `a` is the resulting bias of the exponent of N*(C).
    """
    exact = replace(points, loss=loss(points), loss_se=np.full(len(points), np.nan))
    shifts = []
    for m in isoflop_fit.accepted:
        again = minimum(exact, m.rows, window, m.interpolation)
        log_n, log_d = np.log(points.params[m.rows]), np.log(points.tokens[m.rows])
        fine = np.linspace(log_n.min() - MARGIN, log_n.max() + MARGIN, 40 * FINENESS)
        spent = np.poly1d(np.polyfit(log_n, log_d, 1))
        n, d = np.exp(fine), np.exp(spent(fine))
        best = fine[np.argmin(loss(along(points, n, d, m.flops)))]
        shifts.append(again.log_params - best)
    known = np.isfinite(shifts)
    log_c = np.log(isoflop_fit.array("flops"))
    slope = np.polyfit(log_c[known], np.array(shifts)[known], 1)[0] if known.sum() > 1 else np.nan
    return {"shifts": shifts, "a": float(slope)}


def along(points: Points, params: np.ndarray, tokens: np.ndarray, flops: float) -> Points:
    """Points of one budget at other sizes; only the inputs of laws are filled in."""
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
