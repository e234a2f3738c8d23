"""Analyses a pilot: cheap runs that give the learning rate, the iso-FLOP minima and the noise.

A cell is one size at one budget, trained at several learning rates. Each cell gives its best rate
and the loss there, the cells of a budget give its best size, and a prior extrapolates the best size
to larger budgets.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaling.fits.isoflop import IsoFlop, isoflop
from scaling.fits.minimise import Sample, bfgs
from scaling.fits.robust_fit import Fit, fit
from scaling.intervals import finite
from scaling.laws import LAWS
from scaling.laws.law import Inputs, Law
from scaling.table import Points
from scaling.validate import Unsupported

# N* ∝ C^a: .46 to .51 in Hoffmann et al. 2022 and Besiroglu et al. 2024, .73 in Kaplan et al. 2020.
EXPONENT, EXPONENT_SD = 0.5, 0.1
# Mean and standard deviation of the law's exponents. A pilot is too narrow to determine them.
# Published alpha and beta are between .28 and .5; below a million parameters they reach .8.
PRIOR = {"alpha": (0.45, 0.2), "beta": (0.45, 0.2)}
LEAST_EXPONENT = 0.02  # draws with a smaller exponent are discarded
FLOOR = (np.log(0.6), 0.4)  # mean and sd of log(E / lowest loss of the pilot)
LAWS_DRAWN = 200
# The best rate depends on width if its slope exceeds MOVES_SES standard errors and changes the rate
# by more than MOVES_FACTOR over the pilot's widths.
MOVES_SES = 2.0
MOVES_FACTOR = 1.25
Z90 = 1.645  # standard deviations on either side that contain 90 % of a normal distribution


@dataclass(frozen=True)
class Trials:
    """The runs of a pilot, one row each. The loss of diverged runs is inf."""

    budget: np.ndarray  # FLOPs, counted by the config's convention
    params: np.ndarray
    tokens: np.ndarray
    width: np.ndarray
    rate: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Cell:
    """One size at one budget: its best learning rate and the loss there."""

    budget: float
    params: float
    tokens: float
    width: float
    rates: tuple[float, ...]  # all rates tried
    rate: float
    loss: float
    edge: str  # 'smallest' or 'largest' if the best rate is at that end of the rates tried


def cells(trials: Trials) -> list[Cell]:
    """All cells, ordered by budget and size. Raises ValueError if every run of a cell diverged."""
    result = []
    for budget, params in np.unique(np.stack([trials.budget, trials.params], axis=1), axis=0):
        rows = np.flatnonzero((trials.budget == budget) & (trials.params == params))
        rows = rows[np.argsort(trials.rate[rows])]
        rates, losses = trials.rate[rows], trials.loss[rows]
        row = rows[0]
        if not np.isfinite(losses).any():
            raise ValueError(
                f"all runs of width {trials.width[row]:g} at {budget:.3g} FLOPs diverged, at "
                f"learning rates {rates[0]:.3g} to {rates[-1]:.3g}; lower "
                "--config.optimizer.learning_rate"
            )
        rate, loss, edge = best_rate(rates, losses)
        size = (float(trials.tokens[row]), float(trials.width[row]))
        tried = tuple(float(r) for r in rates)
        result.append(Cell(float(budget), float(params), *size, tried, rate, loss, edge))
    return result


def best_rate(rates: np.ndarray, losses: np.ndarray) -> tuple[float, float, str]:
    """The best rate, its loss, and the edge of the rates ('smallest', 'largest' or '').

    The best rate is the vertex of the parabola of log-loss in log rate through the lowest loss and
    its neighbours. If a neighbour diverged, it is the rate with the lowest loss, which is then not
    at an edge.
    """
    lowest = int(np.argmin(losses))
    if lowest == 0 or lowest == len(rates) - 1:
        edge = "smallest" if lowest == 0 else "largest"
        return float(rates[lowest]), float(losses[lowest]), edge
    near = slice(lowest - 1, lowest + 2)
    if not np.isfinite(losses[near]).all():
        return float(rates[lowest]), float(losses[lowest]), ""
    centre = np.log(rates[lowest])
    bend, slope, level = np.polyfit(np.log(rates[near]) - centre, np.log(losses[near]), 2)
    shift = -slope / (2 * bend) if bend > 0 else 0.0
    at = level + slope * shift + bend * shift**2
    return float(np.exp(centre + shift)), float(np.exp(at)), ""


def extensions(cells: list[Cell]) -> tuple[list[tuple[Cell, float]], list[tuple[float, float]]]:
    """The trials of a further round. If the best rate of a cell is at an edge: pairs (cell, rate),
    one step beyond that edge. Otherwise: pairs (budget, N) for budgets whose best size is at an
    edge.
    """
    rates = []
    for cell in cells:
        first, second, *_ = cell.rates if cell.edge == "smallest" else cell.rates[::-1]
        if cell.edge:
            rates.append((cell, float(f"{first * first / second:.3g}")))
    if rates:
        return rates, []
    points = tuned_points(cells)
    minima = isoflop(points, draws=0).minima
    return [], [(float(points.flops[m.rows[0]]), size) for m in minima for size in m.bracket]


@dataclass(frozen=True)
class RateRule:
    """The best learning rate as a function of width: rate(w) = middle (w / width)^slope."""

    middle: float
    width: float
    slope: float  # 0 if the rate does not depend on width
    measured: float  # the slope before the test of significance
    error: float  # standard error of `measured`
    widths: tuple[float, float]  # smallest and largest of the pilot
    by_budget: tuple[tuple[float, float], ...]  # budget, geometric mean of its best rates

    def rate(self, width: float) -> float:
        """The rate at a width, rounded to two digits."""
        return float(f"{self.middle * (width / self.width) ** self.slope:.2g}")

    @property
    def moves(self) -> bool:
        return self.slope != 0


def rate_rule(cells: list[Cell]) -> RateRule:
    """One rate for all widths, or a power of the width if the best rates clearly follow one.

    The slope is fitted within budgets. The level is that of the largest budget, which is closest to
    the ladder, because longer runs tend to need lower rates.
    """
    budget, which = np.unique([cell.budget for cell in cells], return_inverse=True)
    log_width = np.log([cell.width for cell in cells])
    log_rate = np.log([cell.rate for cell in cells])
    counts = np.bincount(which)
    middles = [np.bincount(which, values) / counts for values in (log_width, log_rate)]
    x, y = log_width - middles[0][which], log_rate - middles[1][which]
    squares = float((x**2).sum())
    slope = float((x * y).sum() / squares) if squares else 0.0
    dof = len(cells) - len(budget) - 1
    error = np.sqrt(((y - slope * x) ** 2).sum() / dof / squares) if dof > 0 and squares else np.inf
    widths = (float(np.exp(log_width.min())), float(np.exp(log_width.max())))
    change = abs(slope) * np.log(widths[1] / widths[0])
    moves = abs(slope) > MOVES_SES * error and change > np.log(MOVES_FACTOR)
    width, rate = (float(np.exp(middle[-1])) for middle in middles)
    by_budget = tuple(zip(map(float, budget), map(float, np.exp(middles[1])), strict=True))
    return RateRule(rate, width, slope if moves else 0.0, slope, float(error), widths, by_budget)


def tuned_points(cells: list[Cell]) -> Points:
    """One point per cell: its loss at the best rate. C is the nominal budget."""
    columns = {
        name: np.array([getattr(cell, name) for cell in cells])
        for name in ("params", "tokens", "loss")
    }
    blank = np.full(len(cells), np.nan)
    return Points(
        run=np.array([f"{cell.budget:.3g}-d{cell.width:g}" for cell in cells]),
        flops=np.array([cell.budget for cell in cells]),
        loss_se=blank,  # all runs share the validation text, so its error cancels in differences
        holdout=np.zeros(len(cells), bool),
        source="pilot",
        **columns,
    )


@dataclass(frozen=True)
class SizeLine:
    """log N* = middle + exponent (log C - log_c), with standard deviations of both."""

    log_c: float
    middle: float
    middle_sd: float
    exponent: float
    exponent_sd: float
    measured: float | None  # the exponent from the pilot alone
    measured_sd: float | None

    def at(self, flops: float) -> tuple[float, float]:
        """log N* at a budget and its standard deviation."""
        away = np.log(flops) - self.log_c
        sd = np.hypot(self.middle_sd, self.exponent_sd * away)
        return float(self.middle + self.exponent * away), float(sd)


def size_line(minima: IsoFlop) -> SizeLine:
    """The line through the minima of the pilot. Its exponent is the average of the pilot's and the
    prior's, weighted by precision. Raises Unsupported if no budget has a minimum.
    """
    if not minima.accepted:
        raise Unsupported(
            "; ".join(f"C = {m.flops:.2g}: {m.reason}" for m in minima.minima)
            or "a pilot needs at least 4 sizes per budget"
        )
    log_c, log_n = np.log(minima.array("flops")), minima.array("log_params")
    # With few degrees of freedom the draws have long tails, so match their 90 % interval.
    low, high = np.percentile(minima.draws["log_params"], [5, 95], axis=0)
    sd = np.maximum((high - low) / (2 * Z90), 1e-9)
    away = log_c - log_c.mean()
    middle = (log_c.mean(), log_n.mean(), np.sqrt((sd**2).sum()) / len(sd))
    squares = float((away**2).sum())
    if not squares:
        return SizeLine(*map(float, middle), EXPONENT, EXPONENT_SD, None, None)
    slope = float((away * log_n).sum() / squares)
    slope_sd = float(np.sqrt((away**2 * sd**2).sum()) / squares)
    weights = np.array([EXPONENT_SD**-2, slope_sd**-2])
    mixed = float(weights @ [EXPONENT, slope] / weights.sum())
    return SizeLine(*map(float, middle), mixed, float(weights.sum() ** -0.5), slope, slope_sd)


@dataclass(frozen=True)
class Prior:
    """Normal prior distributions of some coordinates of a law."""

    names: tuple[str, ...]
    centre: np.ndarray
    sd: np.ndarray


def prior_of(points: Points) -> Prior:
    """The prior on alpha, beta and log E. The mean of log E depends on the pilot's lowest loss."""
    floor = (FLOOR[0] + np.log(points.loss.min()), FLOOR[1])
    centre, sd = np.array([floor, *PRIOR.values()]).T
    return Prior(("log_E", *PRIOR), centre, sd)


def with_prior(law: Law, names: tuple[str, ...]) -> Law:
    """The law with its coordinates `names` appended to its log-losses, as further observations."""
    which = [law.coordinates.index(name) for name in names]

    def function(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        log_loss, slopes = law.function(theta, x)
        units = np.eye(theta.shape[1])[:, which]
        units = np.broadcast_to(units, (len(theta), *units.shape))
        return np.hstack([log_loss, theta[:, which]]), np.concatenate([slopes, units], axis=2)

    return replace(law, function=function)


def posterior_laws(points: Points, noise: float, dof: int, seed: int = 0) -> np.ndarray:
    """Laws L(N, D) given a pilot and the prior, as coordinates [1 + S, 5]: the maximum a posteriori
    first, then posterior draws. `noise` is the standard deviation of a run's log-loss, estimated
    with `dof` degrees of freedom.
    """
    law, prior = LAWS["parametric"], prior_of(points)
    noise = max(noise, 1e-6)
    observed = np.concatenate([np.log(points.loss), prior.centre])
    precision = np.concatenate([np.full(len(points), noise), prior.sd]) ** -2
    fitted = fit(
        with_prior(law, prior.names),
        points.columns(),
        np.exp(observed),
        "squares",
        weights=precision,
        starts=law.starts(law.log_inputs(points.columns()), np.log(points.loss)),
    )
    drawn = posterior_draws(fitted, observed, noise, dof, prior, seed)
    valid = np.isfinite(drawn).all(axis=1) & (drawn[:, 3:] > LEAST_EXPONENT).all(axis=1)
    return np.concatenate([fitted.theta[None], drawn[valid]])


def posterior_draws(
    fitted: Fit, observed: np.ndarray, noise: float, dof: int, prior: Prior, seed: int
) -> np.ndarray:
    """Refits [LAWS_DRAWN, 5] to `observed` (log-losses of the runs, then means of the prior) plus
    new noise. For a linear law these are exact posterior draws. The scale of the noise varies
    between draws according to `dof`.
    """
    random = np.random.default_rng(seed)
    scale = np.sqrt(dof / random.chisquare(dof, LAWS_DRAWN)) if dof else np.ones(LAWS_DRAWN)
    runs = len(observed) - len(prior.sd)
    of_runs = noise * scale[:, None].repeat(runs, 1)
    spread = np.hstack([of_runs, np.tile(prior.sd, (LAWS_DRAWN, 1))])
    redrawn = observed + spread * random.standard_normal(spread.shape)
    start = np.tile(fitted.theta, (LAWS_DRAWN, 1))
    return bfgs(fitted.problem, start, Sample(redrawn, fitted.sample.weights))[0]


@dataclass(frozen=True)
class Pilot:
    """The analysis of a pilot."""

    cells: list[Cell]
    points: Points
    minima: IsoFlop
    rule: RateRule
    line: SizeLine
    laws: np.ndarray

    @property
    def noise(self) -> float:
        return self.minima.spread

    @property
    def dof(self) -> int:
        return max(self.minima.dof, 1)

    def to_json(self) -> dict[str, Any]:
        """The pilot's part of pilot.json."""
        line, rule = self.line, self.rule
        minima = [
            {"flops": m.flops, "params": finite(np.exp(m.log_params)), "reason": m.reason or None}
            for m in self.minima.minima
        ]
        law = LAWS["parametric"].constants(self.laws[:1])
        return {
            "minima": minima,
            "exponent": {"value": line.exponent, "sd": line.exponent_sd}
            | {"pilot": line.measured, "pilot_sd": line.measured_sd}
            | {"prior": EXPONENT, "prior_sd": EXPONENT_SD},
            "learning_rate": {"middle": rule.middle, "width": rule.width, "slope": rule.slope}
            | {"measured": rule.measured, "error": finite(rule.error), "moves": rule.moves}
            | {"widths": list(rule.widths), "by_budget": [list(row) for row in rule.by_budget]},
            "noise": self.noise,
            "dof": self.minima.dof,
            "law": {name: float(value[0]) for name, value in law.items()},
            "cells": [vars(cell) for cell in self.cells],
        }


def read_pilot(trials: Trials, seed: int = 0) -> Pilot:
    """Analyses the trials. Raises Unsupported if they do not support a proposal."""
    tuned = cells(trials)
    for cell in tuned:
        if cell.edge:
            raise Unsupported(
                f"width {cell.width:g} at {cell.budget:.3g} FLOPs is best at the {cell.edge} "
                f"learning rate tried, {cell.rate:.3g}, so the optimum may be beyond it; start "
                "from another --config.optimizer.learning_rate"
            )
    points = tuned_points(tuned)
    minima = isoflop(points, seed=seed)
    line = size_line(minima)
    if not minima.dof:
        raise Unsupported(
            "estimating the noise needs at least 4 sizes at two budgets, or 5 sizes at one"
        )
    laws = posterior_laws(points, minima.spread, minima.dof, seed)
    return Pilot(tuned, points, minima, rate_rule(tuned), line, laws)
