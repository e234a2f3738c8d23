"""This file finds the best model size of every compute budget, and how it grows with compute."""

from dataclasses import dataclass, replace

import numpy as np

from scaling.fit import Fit, fit
from scaling.minimise import Sample, bfgs
from scaling.refuse import Unsupported
from scaling.table import Points

SAME_BUDGET = 0.1
FEWEST_BUDGETS = 3
FEWEST_SIZES = 4
WINDOW = 5


@dataclass(frozen=True)
class Minimum:
    """The parabola through the losses of one budget, and its lowest point if the sizes bracket "
    "it."""

    flops: float
    rows: np.ndarray  # of the table, by size
    window: np.ndarray  # those of `rows` that the parabola goes through
    coefficients: np.ndarray  # of log-loss in log(N / N_lowest), highest power first
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

    @property
    def accepted(self) -> tuple[Minimum, ...]:
        return tuple(m for m in self.minima if not m.reason)

    def array(self, name: str) -> np.ndarray:
        """One attribute of the accepted minima."""
        return np.array([getattr(m, name) for m in self.accepted])


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


def minimum(points: Points, rows: np.ndarray, window: int = WINDOW) -> Minimum:
    """The minimum of one budget by a parabola of log-loss in log N through the points around the
    lowest.

    Hoffmann et al. 2022, approach 2. A lowest loss at the smallest or largest size is no minimum.

    """
    rows = rows[np.argsort(points.params[rows], kind="stable")]
    log_n, log_loss = np.log(points.params[rows]), np.log(points.loss[rows])
    flops = float(np.exp(np.mean(np.log(points.flops[rows]))))
    lowest = int(np.argmin(log_loss))
    centre = float(log_n[lowest])
    sizes = np.unique(log_n)
    reason, bracket = unbracketed(sizes, centre)
    nearest = np.argsort(np.abs(log_n - centre), kind="stable")[: max(window, 3)]
    chosen = np.sort(nearest)
    if not reason and not (log_n[chosen].min() < centre < log_n[chosen].max()):
        chosen = np.sort([lowest - 1, lowest, lowest + 1, *nearest[:2]])
        chosen = np.unique(chosen)
    blank = Minimum(flops, rows, rows[chosen], np.full(3, np.nan), centre, reason, bracket)
    if reason:
        return blank
    bend, slope, level = np.polyfit(log_n[chosen] - centre, log_loss[chosen], 2)
    vertex = centre - slope / (2 * bend) if bend > 0 else np.nan
    if not log_n[chosen].min() < vertex < log_n[chosen].max():
        flat = "the losses around the lowest do not bend into a minimum between the sizes tried"
        return replace(blank, reason=flat)
    at = vertex - centre
    return Minimum(
        flops,
        rows,
        rows[chosen],
        np.array([bend, slope, level]),
        centre,
        "",
        (),
        float(vertex),
        float(np.interp(vertex, log_n, np.log(points.tokens[rows]))),
        float(bend * at**2 + slope * at + level),
    )


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


def isoflop(points: Points, draws: int = 1000, seed: int = 0, window: int = WINDOW) -> IsoFlop:
    """The minima of all budgets of at least two sizes, with noise drawn again `draws` times.

    The noise of a run is the spread of the points about the parabolas (with their degrees of
    freedom taken off), or the recorded standard error of the evaluations where that is larger.
    """
    groups = [rows for rows in budgets(points.flops) if len(np.unique(points.params[rows])) > 1]
    minima = tuple(minimum(points, rows, window) for rows in groups)
    accepted = [m for m in minima if not m.reason]
    squares, dof, noise = 0.0, 0, 0.0
    for m in accepted:
        residual = np.log(points.loss[m.window]) - curve(m, np.log(points.params[m.window]))
        squares, dof = squares + float((residual**2).sum()), dof + len(residual) - 3
    errors = points.loss_se / points.loss
    if np.isfinite(errors).any():
        noise = float(np.nanmedian(errors))
    spread = max(np.sqrt(squares / dof) if dof else 0.0, noise)
    drawn = [redraw(points, m, spread, dof, draws, seed + i) for i, m in enumerate(accepted)]
    names = ("log_params", "log_tokens", "log_loss")
    stacked = {n: np.stack([d[i] for d in drawn], axis=1) for i, n in enumerate(names) if drawn}
    return IsoFlop(minima, float(spread), dof, stacked)


def curve(m: Minimum, log_params: np.ndarray) -> np.ndarray:
    """The parabola's log-loss at given log N."""
    return np.polyval(m.coefficients, log_params - m.centre)


def redraw(
    points: Points, m: Minimum, spread: float, dof: int, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws of one minimum's log N, log D and log-loss under new noise of its runs.

    A draw whose vertex lies outside the window, or is a maximum, takes the edge with the lower
    loss: a parabola means nothing beyond the points that it was drawn through.
    """
    random = np.random.default_rng(seed)
    log_n = np.log(points.params[m.window])
    design = np.vander(log_n - m.centre, 3)
    scale = spread * np.sqrt(dof / random.chisquare(dof, draws)) if dof else np.full(draws, spread)
    noise = random.standard_normal((draws, len(log_n))) * scale[:, None]
    bend, slope, level = (np.linalg.pinv(design) @ (curve(m, log_n) + noise).T).reshape(3, -1)
    every = np.log(points.params[m.rows])
    low, high = log_n.min() - m.centre, log_n.max() - m.centre
    with np.errstate(divide="ignore", invalid="ignore"):
        at = np.where(bend > 0, -slope / (2 * bend), np.where(slope > 0, low, high))
    at = np.clip(at, low, high)
    tokens = np.interp(at + m.centre, every, np.log(points.tokens[m.rows]))
    return at + m.centre, tokens, bend * at**2 + slope * at + level


def exponents(found: IsoFlop) -> dict[str, tuple[float, float, np.ndarray, np.ndarray]]:
    """For N* ('a') and D* ('b'): exponent, log of the coefficient, and draws of both. N* = k C^a.

    Unsupported where fewer than FEWEST_BUDGETS minima are known.
    """
    known = len(found.accepted)
    if known < FEWEST_BUDGETS:
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
    wanting = [f"C = {m.flops:.2g}: {m.reason}" for m in found.minima if m.reason]
    head = (
        f"{len(found.accepted)} budgets with a bracketed minimum, and {FEWEST_BUDGETS} are needed"
    )
    return head + ("; " + "; ".join(wanting[:4]) if wanting else "")


def frontier(found: IsoFlop) -> tuple[Fit, np.ndarray]:
    """L(C) = E + K C^-γ through the minima's losses, and its coordinates for every draw of them.

    Unsupported where the minima are too few, or do not bend: then E cannot be told from 0.
    """
    if len(found.accepted) < FEWEST_BUDGETS:
        raise Unsupported(
            f"{len(found.accepted)} bracketed minima, and {FEWEST_BUDGETS} are needed"
        )
    columns = {"flops": found.array("flops")}
    fitted = fit("frontier", columns, np.exp(found.array("log_loss")), objective="squares")
    constants = fitted.constants()
    if not (
        constants["E"] > 1e-2 * np.exp(found.array("log_loss").min()) and constants["gamma"] > 0
    ):
        raise Unsupported(
            "the lowest losses fall as a straight line in log-log, or faster: E cannot be told "
            "from 0; "
            "add budgets over a wider range"
        )
    drawn = Sample(found.draws["log_loss"], fitted.sample.weights)
    theta = np.tile(fitted.theta, (len(drawn.log_loss), 1))
    return fitted, bfgs(fitted.problem, theta, drawn)[0]
