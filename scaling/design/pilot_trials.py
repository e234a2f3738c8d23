"""What a pilot shows: a few cheap runs give the learning rate, the place of the minima, the noise.

A cell is one size at one budget, tried at several learning rates. Each cell gives its best rate and
the loss there; the cells of a budget give its best size; a prior carries that to larger budgets.
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
# Mean and standard deviation of the law's exponents, which a pilot is too narrow to determine:
# published alpha and beta lie between .28 and .5, those of models below a million parameters up
# to .8.
PRIOR = {"alpha": (0.45, 0.2), "beta": (0.45, 0.2)}
LEAST_EXPONENT = 0.02  # a draw below it is no power law
FLOOR = (np.log(0.6), 0.4)  # log of E as a share of the lowest loss of the pilot
LAWS_DRAWN = 200
MOVES_SES = 2.0  # standard errors from which on a slope of the best rate in width counts
MOVES_FACTOR = 1.25  # and where it changes the rate by this much within the pilot's widths
UNCERTAIN = 1.645  # standard deviations to either side hold 90 %


@dataclass(frozen=True)
class Trials:
    """The runs of a pilot, one row each; those that diverged have a loss of inf."""

    budget: np.ndarray  # FLOPs, by the config's convention
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
    rates: tuple[float, ...]  # tried
    rate: float
    loss: float
    edge: str  # 'smallest' or 'largest' where the best rate tried is the first or the last


def cells(trials: Trials) -> list[Cell]:
    """All cells by budget and size. ValueError where every rate of one diverged."""
    found = []
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
        found.append(Cell(float(budget), float(params), *size, tried, rate, loss, edge))
    return found


def best_rate(rates: np.ndarray, losses: np.ndarray) -> tuple[float, float, str]:
    """The vertex of the parabola of log-loss in log rate through the lowest and its neighbours, the
    loss there, and the edge of the rates at which the lowest lies, if it does.

    A rate above which runs diverge has no parabola: it is the best itself, and no edge.
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


def extensions(found: list[Cell]) -> tuple[list[tuple[Cell, float]], list[tuple[float, float]]]:
    """What a further round of trials takes: (cell, rate) one step beyond the rates whose edge is
    the best, or else, once all rates are known, (budget, N) beyond the sizes whose edge is.
    """
    rates = []
    for cell in found:
        first, second, *_ = cell.rates if cell.edge == "smallest" else cell.rates[::-1]
        if cell.edge:
            rates.append((cell, float(f"{first * first / second:.3g}")))
    if rates:
        return rates, []
    points = tuned_points(found)
    minima = isoflop(points, draws=0).minima
    return [], [(float(points.flops[m.rows[0]]), size) for m in minima for size in m.bracket]


@dataclass(frozen=True)
class RateRule:
    """The best learning rate by width: rate = middle (width / width_middle)^slope."""

    middle: float
    width: float
    slope: float  # 0 where the rate does not move
    measured: float  # the slope as found
    error: float  # its standard error
    widths: tuple[float, float]  # of the pilot
    by_budget: tuple[tuple[float, float], ...]  # budget, geometric mean of its best rates

    def rate(self, width: float) -> float:
        """To two digits."""
        return float(f"{self.middle * (width / self.width) ** self.slope:.2g}")

    @property
    def moves(self) -> bool:
        return self.slope != 0


def rate_rule(found: list[Cell]) -> RateRule:
    """One rate for all widths, or a power of the width where the best rates clearly follow one.

    The slope is that within the budgets; the level is the largest budget's, which is the nearest
    to the ladder: longer runs tend to want lower rates.
    """
    budget, which = np.unique([cell.budget for cell in found], return_inverse=True)
    log_width = np.log([cell.width for cell in found])
    log_rate = np.log([cell.rate for cell in found])
    counts = np.bincount(which)
    middles = [np.bincount(which, values) / counts for values in (log_width, log_rate)]
    x, y = log_width - middles[0][which], log_rate - middles[1][which]
    squares = float((x**2).sum())
    slope = float((x * y).sum() / squares) if squares else 0.0
    dof = len(found) - len(budget) - 1
    error = np.sqrt(((y - slope * x) ** 2).sum() / dof / squares) if dof > 0 and squares else np.inf
    widths = (float(np.exp(log_width.min())), float(np.exp(log_width.max())))
    change = abs(slope) * np.log(widths[1] / widths[0])
    moves = abs(slope) > MOVES_SES * error and change > np.log(MOVES_FACTOR)
    width, rate = (float(np.exp(middle[-1])) for middle in middles)
    by_budget = tuple(zip(map(float, budget), map(float, np.exp(middles[1])), strict=True))
    return RateRule(rate, width, slope if moves else 0.0, slope, float(error), widths, by_budget)


def tuned_points(found: list[Cell]) -> Points:
    """A point a cell: its loss at the best rate. C is the nominal budget."""
    columns = {
        name: np.array([getattr(cell, name) for cell in found])
        for name in ("params", "tokens", "loss")
    }
    blank = np.full(len(found), np.nan)
    return Points(
        run=np.array([f"{cell.budget:.3g}-d{cell.width:g}" for cell in found]),
        flops=np.array([cell.budget for cell in found]),
        loss_se=blank,  # all runs share the validation text: its error moves them together
        holdout=np.zeros(len(found), bool),
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
    measured: float | None  # the exponent by the pilot alone
    measured_sd: float | None

    def at(self, flops: float) -> tuple[float, float]:
        """log N* at a budget, and its standard deviation."""
        away = np.log(flops) - self.log_c
        sd = np.hypot(self.middle_sd, self.exponent_sd * away)
        return float(self.middle + self.exponent * away), float(sd)


def size_line(found: IsoFlop) -> SizeLine:
    """The minima of the pilot, carried on by its own exponent and the prior, each weighted by its
    precision. Unsupported where no budget has a minimum.
    """
    if not found.accepted:
        raise Unsupported(
            "; ".join(f"C = {m.flops:.2g}: {m.reason}" for m in found.minima)
            or "a pilot takes at least 4 sizes a budget"
        )
    log_c, log_n = np.log(found.array("flops")), found.array("log_params")
    # Few degrees of freedom make long tails: a deviation whose 90 % are those of the draws.
    low, high = np.percentile(found.draws["log_params"], [5, 95], axis=0)
    sd = np.maximum((high - low) / (2 * UNCERTAIN), 1e-9)
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
    """Normal distributions of some coordinates of a law: prior knowledge."""

    names: tuple[str, ...]
    centre: np.ndarray
    sd: np.ndarray


def prior_of(points: Points) -> Prior:
    """PRIOR, with the floor relative to the lowest loss of the pilot."""
    floor = (FLOOR[0] + np.log(points.loss.min()), FLOOR[1])
    centre, sd = np.array([floor, *PRIOR.values()]).T
    return Prior(("log_E", *PRIOR), centre, sd)


def with_prior(law: Law, names: tuple[str, ...]) -> Law:
    """The law with its coordinates `names` appended to its log-losses, as if they were observed."""
    which = [law.coordinates.index(name) for name in names]

    def function(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        log_loss, slopes = law.function(theta, x)
        units = np.eye(theta.shape[1])[:, which]
        units = np.broadcast_to(units, (len(theta), *units.shape))
        return np.hstack([log_loss, theta[:, which]]), np.concatenate([slopes, units], axis=2)

    return replace(law, function=function)


def posterior_laws(points: Points, noise: float, dof: int, seed: int = 0) -> np.ndarray:
    """Laws L(N, D) that fit a pilot and the prior, coordinates [1 + S, 5]: the most probable first,
    then draws. `noise` is the standard deviation of a run's log-loss, known from `dof` degrees of
    freedom.
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
    lawful = np.isfinite(drawn).all(axis=1) & (drawn[:, 3:] > LEAST_EXPONENT).all(axis=1)
    return np.concatenate([fitted.theta[None], drawn[lawful]])


def posterior_draws(
    fitted: Fit, observed: np.ndarray, noise: float, dof: int, prior: Prior, seed: int
) -> np.ndarray:
    """Refits [LAWS_DRAWN, 5] to `observed` (log-losses of the runs, then centres of the prior) with
    new noise of all: for a linear law the posterior itself. The size of the noise is uncertain by
    its `dof`.
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
    """All that a pilot shows."""

    cells: list[Cell]
    points: Points
    found: IsoFlop
    rule: RateRule
    line: SizeLine
    laws: np.ndarray

    @property
    def noise(self) -> float:
        return self.found.spread

    @property
    def dof(self) -> int:
        return max(self.found.dof, 1)

    def described(self) -> dict[str, Any]:
        """As --json has it."""
        line, rule = self.line, self.rule
        minima = [
            {"flops": m.flops, "params": finite(np.exp(m.log_params)), "reason": m.reason or None}
            for m in self.found.minima
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
            "dof": self.found.dof,
            "law": {name: float(value[0]) for name, value in law.items()},
            "cells": [vars(cell) for cell in self.cells],
        }


def read_pilot(trials: Trials, seed: int = 0) -> Pilot:
    """Everything from the trials. Unsupported, and why, where they cannot carry a proposal."""
    found = cells(trials)
    for cell in found:
        if cell.edge:
            raise Unsupported(
                f"width {cell.width:g} at {cell.budget:.3g} FLOPs is best at the {cell.edge} "
                f"learning rate tried, {cell.rate:.3g}, so the best is not known; start from "
                "another --config.optimizer.learning_rate"
            )
    points = tuned_points(found)
    minima = isoflop(points, seed=seed)
    line = size_line(minima)
    if not minima.dof:
        raise Unsupported("4 sizes or more at two budgets, or 5 at one, are needed for the noise")
    laws = posterior_laws(points, minima.spread, minima.dof, seed)
    return Pilot(found, points, minima, rate_rule(found), line, laws)
