"""Fits a law to points with a robust objective and many starts, and bootstraps the fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from scaling.fits.minimise import Sample, bfgs, levenberg_marquardt
from scaling.laws import LAWS
from scaling.laws.law import Inputs, Law
from scaling.validate import Unsupported

HUBER_DELTA = 1e-3
SEED = 42  # of the bootstrap
SCREENING_POINTS = 400
POLISHED_STARTS = 32
SAME_MINIMUM = 1e-8
BOOTSTRAP_BATCH = 500
ABSOLUTE_DELTAS = (1e-3, 1e-5, 1e-7, 1e-9)


def huber(residual: np.ndarray, delta: float) -> tuple[np.ndarray, np.ndarray]:
    """Huber's loss and its slope: r²/2 within delta, delta (|r| - delta/2) beyond."""
    slope = np.clip(residual, -delta, delta)
    return slope * (residual - slope / 2), slope


def least_squares(residual: np.ndarray, _: float) -> tuple[np.ndarray, np.ndarray]:
    """r²/2 and its slope."""
    return residual * residual / 2, residual


def finite(values: np.ndarray) -> np.ndarray:
    """What np.nan_to_num returns, in a third of the time where every value is finite."""
    return values if np.isfinite(values).all() else np.nan_to_num(values)


OBJECTIVES = {"huber": huber, "squares": least_squares}


@dataclass(frozen=True)
class Problem:
    """A law, the points it is fitted to, and the objective: sum_i w_i rho(log L_i - log loss_i).

    The losses are summed, not averaged: averaging divides the gradient by n, and a stopping rule
    that depends on the size of the gradient would stop early.
    """

    law: Law
    x: Inputs
    objective: str = "huber"
    delta: float = HUBER_DELTA

    def value_and_gradient(
        self, theta: np.ndarray, sample: Sample
    ) -> tuple[np.ndarray, np.ndarray]:
        """The objective [S] and its gradient [S, P] at theta [S, P]."""
        with np.errstate(over="ignore", invalid="ignore"):
            log_loss, slopes = self.law.evaluate(theta, self.x)
            rho, psi = OBJECTIVES[self.objective](log_loss - sample.log_loss, self.delta)
            value = (sample.weights * rho).sum(-1)
            gradient = (slopes @ (sample.weights * psi)[..., None])[..., 0]
        return np.where(np.isfinite(value), value, np.inf), finite(gradient)

    def curvature(self, theta: np.ndarray, sample: Sample) -> np.ndarray:
        """Gauss–Newton curvature [S, P, P]. Each point has the weight w psi(r) / r."""
        with np.errstate(over="ignore", invalid="ignore"):
            log_loss, slopes = self.law.evaluate(theta, self.x)
            residual = log_loss - sample.log_loss
            _, psi = OBJECTIVES[self.objective](residual, self.delta)
            zero = residual == 0
            ratio = np.where(zero, 1.0, psi / np.where(zero, 1.0, residual))
            matrix = (slopes * (sample.weights * ratio)[:, None, :]) @ slopes.transpose(0, 2, 1)
        return finite(matrix)

    def every(self, stride: int) -> "Problem":
        """The same problem on every stride-th point, to rank starts."""
        return replace(self, x={name: values[::stride] for name, values in self.x.items()})


@dataclass(frozen=True)
class Fit:
    """The best minimum, with diagnostics of its convergence."""

    problem: Problem
    sample: Sample
    theta: np.ndarray  # [F], the free coordinates of the law
    objective: float
    starts: int
    reached: int
    gradient_norm: float
    condition: float

    @property
    def law(self) -> Law:
        return self.problem.law

    @property
    def residuals(self) -> np.ndarray:
        """log loss - log L of every point; positive if the run is worse than the law. Of a linear
        law the difference of the responses themselves."""
        log_loss, _ = self.law.evaluate(self.theta[None], self.problem.x)
        return self.sample.log_loss - log_loss[0]

    @property
    def spread(self) -> float:
        """Standard deviation of a run's log-loss about the law, corrected for the constants."""
        residuals, dof = self.residuals, len(self.residuals) - len(self.theta)
        return float(np.sqrt((residuals**2).sum() / max(dof, 1)))

    def constants(self) -> dict[str, float]:
        """The constants as papers print them."""
        return {name: float(v[0]) for name, v in self.law.constants(self.theta[None]).items()}

    def loss(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The predicted response [n] at columns of length n."""
        return self.law.loss(self.theta, columns)


def fit(
    law: Law | str,
    columns: Mapping[str, np.ndarray],
    loss: np.ndarray,
    objective: str = "huber",
    delta: float = HUBER_DELTA,
    weights: np.ndarray | None = None,
    starts: np.ndarray | None = None,
) -> Fit:
    """Fits a law from its grid of starts, or from `starts` [S, F], and returns the lowest minimum.
    `columns` and `loss`, the response of the law, are in their natural units, not logarithms.

    All starts are first minimised on at most SCREENING_POINTS points. The best POLISHED_STARTS then
    converge to full precision on all points. `reached` counts those that end in the lowest minimum.
    """
    law = LAWS[law] if isinstance(law, str) else law
    n, coordinates = len(loss), len(law.free)
    if n < coordinates:
        raise Unsupported(
            f"{law.name}: {n} points are too few for {coordinates} constants; "
            f"add at least {coordinates - n} runs"
        )
    stages = sharpened(Problem(law, law.log_inputs(columns), objective, delta))
    weights = np.ones(n) if weights is None else np.asarray(weights, float)
    sample = Sample(law.scaled(loss), weights)
    stride = max(1, n // SCREENING_POINTS)
    thinned = stages[0].every(stride)
    few = Sample(sample.log_loss[::stride], weights[::stride])
    grid = law.starts(stages[0].x, sample.log_loss) if starts is None else starts
    theta = levenberg_marquardt(thinned, grid, few)
    order = np.argsort(thinned.value_and_gradient(theta, few)[0], kind="stable")
    theta = theta[order[:POLISHED_STARTS]]
    for stage in stages:
        theta, value = bfgs(stage, theta, sample)
    best = int(np.argmin(value))
    reached = int((value <= value[best] * (1 + SAME_MINIMUM) + 1e-300).sum())
    diagnostics = stationarity(stages[-1], theta[best], sample)
    return Fit(
        stages[-1], sample, theta[best], float(value[best]), len(grid), reached, *diagnostics
    )


def sharpened(problem: Problem) -> list[Problem]:
    """The stages of a fit. objective=absolute has several: Huber losses with decreasing delta."""
    if problem.objective in OBJECTIVES:
        return [problem]
    if problem.objective != "absolute":
        known = ", ".join(sorted((*OBJECTIVES, "absolute")))
        raise ValueError(f"objective={problem.objective!r} is unknown; use one of {known}")
    return [replace(problem, objective="huber", delta=delta) for delta in ABSOLUTE_DELTAS]


def stationarity(problem: Problem, theta: np.ndarray, sample: Sample) -> tuple[float, float]:
    """The norm of the gradient, scaled by the curvature of each coordinate, and the condition
    number of the scaled curvature.
    """
    _, gradient = problem.value_and_gradient(theta[None], sample)
    curvature = problem.curvature(theta[None], sample)[0]
    scale = 1 / np.sqrt(np.maximum(np.diag(curvature), 1e-300))
    condition = np.linalg.cond(curvature * scale[:, None] * scale)
    return float(np.linalg.norm(gradient[0] * scale)), float(condition)


def numbered(runs: np.ndarray) -> tuple[int, np.ndarray]:
    """The number of runs, and the run index of each row, in order of first appearance."""
    _, first, which = np.unique(np.asarray(runs), return_index=True, return_inverse=True)
    return len(first), np.argsort(np.argsort(first))[which]


def resample_runs(
    fitted: Fit, runs: np.ndarray, size: int, random: np.random.RandomState
) -> Sample:
    """Resamples whole runs with replacement, not single points of a curve."""
    count, which = numbered(runs)
    drawn = random.randint(0, count, (size, count))
    times = np.stack([np.bincount(draw, minlength=count) for draw in drawn])
    return Sample(fitted.sample.log_loss, times[:, which] * fitted.sample.weights)


def resample_residuals(
    fitted: Fit, runs: np.ndarray, size: int, random: np.random.RandomState
) -> Sample:
    """The fitted law at the N and D of the runs, plus noise with the spread of the residuals.

    This keeps the design of a small ladder, where resampling runs would often drop a whole budget.
    Every draw scales the noise by sqrt(dof / chi2_dof), as in Student's t, because few residuals
    determine their spread poorly.
    """
    count, which = numbered(runs)
    law = fitted.sample.log_loss - fitted.residuals
    dof = max(count - len(fitted.theta), 1)
    spread = np.sqrt(fitted.spread**2 * dof / random.chisquare(dof, size))
    noise = random.standard_normal((size, count))[:, which] * spread[:, None]
    return Sample(law + noise, fitted.sample.weights)


RESAMPLINGS = {"runs": resample_runs, "residuals": resample_residuals}


def bootstrap(
    fitted: Fit,
    runs: np.ndarray,
    draws: int,
    seed: int = SEED,
    resampling: str = "runs",
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Free coordinates [draws, F] of refits to resampled data, each started from the full fit.

    The generator is numpy's legacy RandomState. With SEED it draws the same resamples as Besiroglu
    et al. 2024, so standard errors can be compared exactly.
    """
    random = np.random.RandomState(seed)
    refits = [np.empty((0, len(fitted.theta)))]
    for first in range(0, draws, BOOTSTRAP_BATCH):
        size = min(BOOTSTRAP_BATCH, draws - first)
        sample = RESAMPLINGS[resampling](fitted, runs, size, random)
        theta, _ = bfgs(fitted.problem, np.tile(fitted.theta, (size, 1)), sample)
        refits.append(theta)
        if progress:
            progress(first + size, draws)
    return np.concatenate(refits)
