"""Simulates how precisely a ladder will determine the constants of a law.

Ladders are simulated from a known law and the noise of one run, and each is fitted as `isoflop fit`
would fit it. The precision of a constant is the width of the interval that contains 90 % of its
estimates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scaling.fits.isoflop import (
    FEWEST_BUDGETS,
    FEWEST_SIZES,
    WINDOW,
    lowest_of_parabolas,
    neighbourhood,
)
from scaling.fits.minimise import Sample, bfgs
from scaling.fits.robust_fit import Problem
from scaling.intervals import finite
from scaling.laws import LAWS
from scaling.laws.optimal_split import optimal_params
from scaling.settings import LEVEL

LADDERS = 1000  # simulated with the most likely law
OTHER_LAWS = 16  # draws of the law that are simulated too
LADDERS_EACH = 200
REFIT_STEPS = 100  # accurate to half a percent of a width; limits draws that have no minimum
LAW = LAWS["parametric"]
# The estimated quantities and their titles. A prediction's error is log(outcome / predicted).
MEASURED = {
    "a": "a",
    "a_isoflop": "a, parabolas",
    "alpha": "alpha",
    "beta": "beta",
    "E": "E",
    "prediction": "held-out loss",
}


@dataclass(frozen=True)
class Design:
    """The fitted runs of a ladder, one row each, and the held-out run."""

    budget: np.ndarray  # FLOPs
    params: np.ndarray
    tokens: np.ndarray
    held_out: tuple[float, float] | None = None  # N, D

    def __len__(self) -> int:
        return len(self.params)

    @property
    def flops(self) -> float:
        """The total compute, including the held-out run."""
        held_out = np.prod(self.held_out) if self.held_out else 0.0
        return float(6 * (self.params * self.tokens).sum() + 6 * held_out)

    def repeated(self, seeds: int) -> "Design":
        """The design with `seeds` seeds for every fitted run."""
        arrays = {name: np.repeat(getattr(self, name), seeds) for name in ARRAYS}
        return replace(self, **arrays)

    def columns(self) -> dict[str, np.ndarray]:
        return {"params": self.params, "tokens": self.tokens}


ARRAYS = ("budget", "params", "tokens")


def ladder(
    theta: np.ndarray,
    budgets: Sequence[float],
    sizes: int,
    span: float,
    held_out: float | None = None,
) -> Design:
    """Sizes from N*/span to N* span, evenly spaced in log N, at every budget C = 6 N D. `held_out`
    is the budget of one further run, at its N*.
    """
    budgets = np.array(budgets, float)
    best = optimal_params(theta[None], budgets[:, None])[:, 0]
    n = (best[:, None] * np.geomspace(1 / span, span, sizes)).ravel()
    c = np.repeat(budgets, sizes)
    last = None
    if held_out:
        size = float(optimal_params(theta[None], np.array(held_out))[0])
        last = (size, held_out / (6 * size))
    return Design(c, n, c / (6 * n), last)


def estimates(
    theta: np.ndarray, noise: float, design: Design, ladders: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """The estimates of `ladders` independent ladders: [ladders] for each key of MEASURED. They are
    nan if `isoflop fit` would reject the fit, or if the design does not determine the quantity.

    `unbracketed` is the share of each ladder's budgets whose lowest loss is at an edge.
    """
    random = np.random.default_rng(seed)
    true = np.log(LAW.loss(theta, design.columns()))
    log_loss = true + noise * random.standard_normal((ladders, len(design)))
    problem = Problem(LAW, LAW.log_inputs(design.columns()))
    start = np.tile(theta, (ladders, 1))
    sample = Sample(log_loss, np.ones(len(design)))
    fitted, _ = bfgs(problem, start, sample, REFIT_STEPS)
    table = LAW.constants(fitted)
    table = {name: table[name] for name in ("alpha", "beta", "E")}
    exponents = np.stack([table["alpha"], table["beta"]])
    valid = ((exponents > 0) & (exponents < LAW.bounds["alpha"][1])).all(axis=0)
    table["a"] = table["beta"] / exponents.sum(axis=0)
    table["prediction"] = np.full(ladders, np.nan)
    if design.held_out:
        n, d = design.held_out
        column = {"params": np.array([n]), "tokens": np.array([d])}
        with np.errstate(over="ignore", invalid="ignore"):  # predictions of invalid fits
            predicted = np.log(LAW.loss(fitted, column)[:, 0])
        outcome = np.log(LAW.loss(theta, column)[0]) + noise * random.standard_normal(ladders)
        table["prediction"] = outcome - predicted
    table = {name: np.where(valid, values, np.nan) for name, values in table.items()}
    return table | by_parabolas(design, true, log_loss)


def by_parabolas(design: Design, true: np.ndarray, log_loss: np.ndarray) -> dict[str, np.ndarray]:
    """The exponent a from the iso-FLOP minima of log-losses [S, n], nan if fewer than 3 budgets
    have 4 sizes; and the share of budgets whose minimum is not bracketed.
    """
    log_c, log_n, outside = [], [], []
    for budget in np.unique(design.budget):
        rows = np.flatnonzero(design.budget == budget)
        x = np.log(design.params[rows])
        if len(np.unique(x)) < FEWEST_SIZES:
            continue
        lowest = x[log_loss[:, rows].argmin(axis=1)]
        outside.append((lowest == x.min()) | (lowest == x.max()))
        near = neighbourhood(x, int(true[rows].argmin()), WINDOW)
        log_n.append(lowest_of_parabolas(x[near], log_loss[:, rows[near]].T)[0])
        log_c.append(np.log(budget))
    unknown = np.full(len(log_loss), np.nan)
    slope = unknown
    if len(log_c) >= FEWEST_BUDGETS:
        slope = (np.linalg.pinv(np.vander(log_c, 2)) @ np.array(log_n))[0]
    return {"a_isoflop": slope, "unbracketed": np.mean(outside, axis=0) if outside else unknown}


def width(values: np.ndarray) -> float:
    """The width of the interval that contains LEVEL of the estimates; nan if all are nan."""
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan")
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(high - low)


def precision(
    theta: np.ndarray, noise: float, dof: int, design: Design, seed: int = 0
) -> dict[str, Any]:
    """The interval widths of one design, as --json prints them: {name: {value, lo, hi}}.

    `theta` [1 + S, 5] is a law and its draws. `noise` is the standard deviation of a run's
    log-loss, estimated with `dof` degrees of freedom. `value` uses the law itself. `lo` and `hi`
    are the smallest and largest width over OTHER_LAWS draws, each with its own noise; null without
    draws.
    """
    simulated = estimates(theta[0], noise, design, LADDERS, seed)
    random = np.random.default_rng(seed)
    others = []
    known = 1 + np.flatnonzero(np.isfinite(theta[1:]).all(axis=1))
    for i in random.permutation(known)[:OTHER_LAWS]:
        scale = noise * np.sqrt(dof / random.chisquare(dof))
        others.append(estimates(theta[i], scale, design, LADDERS_EACH, seed + int(i)))
    widths = {}
    for name in MEASURED:
        again = [w for other in others if np.isfinite(w := width(other[name]))]
        low, high = (min(again), max(again)) if again else (None, None)
        widths[name] = {"value": finite(width(simulated[name])), "lo": low, "hi": high}
    everywhere = np.concatenate([other["unbracketed"] for other in others or [simulated]])
    return {
        "runs": len(design) + bool(design.held_out),
        "flops": design.flops,
        "noise": noise,
        "dof": dof,
        "widths": widths,
        "no_law": float(np.isnan(simulated["alpha"]).mean()),
        "unbracketed": finite(np.mean(everywhere)),
    }


def expected_precision(
    theta: np.ndarray, noise: float, dof: int, designs: Mapping[str, Design], seed: int = 0
) -> list[dict[str, Any]]:
    """The precision of several named designs. Only the first is also simulated with other laws."""
    laws = [theta, *[theta[:1]] * (len(designs) - 1)]
    return [
        {"design": name} | precision(law, noise, dof, design, seed)
        for law, (name, design) in zip(laws, designs.items(), strict=True)
    ]
