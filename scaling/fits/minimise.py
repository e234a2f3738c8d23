"""Minimises many small smooth problems at once: all starts, or all bootstrap draws, in one batch.

A problem has about five coordinates and a few hundred points, so a Python loop over fits would be
dominated by overhead. Both methods below have a leading axis S of independent problems.
Levenberg–Marquardt is robust far from the optimum. BFGS, scaled by the Gauss–Newton curvature,
converges to full precision: it stops when the expected decrease is below 1e-13 of the objective.
Looser stopping rules have led to wrong published exponents.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

TOLERANCE = 1e-13
SUFFICIENT_DECREASE = 1e-4
SHRINK = 0.4


@dataclass(frozen=True)
class Sample:
    """The log-losses and weights that the S problems of a batch are fitted to: [n] if shared, or
    [S, n].
    """

    log_loss: np.ndarray
    weights: np.ndarray

    def rows(self, index: np.ndarray) -> "Sample":
        """The sample of the selected problems."""
        return Sample(*(v if v.ndim == 1 else v[index] for v in (self.log_loss, self.weights)))


class Objective(Protocol):
    """The interface of a problem, at theta [S, P]."""

    def value_and_gradient(
        self, theta: np.ndarray, sample: Sample
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def curvature(self, theta: np.ndarray, sample: Sample) -> np.ndarray: ...


def levenberg_marquardt(
    problem: Objective, theta: np.ndarray, sample: Sample, steps: int = 30
) -> np.ndarray:
    """Damped Gauss–Newton steps with Marquardt's diagonal scaling, from starts [S, P]."""
    identity = np.eye(theta.shape[1])
    damping = np.full(len(theta), 1e-2)
    value, gradient = problem.value_and_gradient(theta, sample)
    for _ in range(steps):
        curvature = problem.curvature(theta, sample)
        diagonal = np.einsum("spp->sp", curvature)
        damped = curvature + (damping[:, None] * diagonal + 1e-30)[:, :, None] * identity
        trial = theta - solve(damped, gradient)
        trial_value, trial_gradient = problem.value_and_gradient(trial, sample)
        better = trial_value < value
        theta = np.where(better[:, None], trial, theta)
        value = np.where(better, trial_value, value)
        gradient = np.where(better[:, None], trial_gradient, gradient)
        damping = np.clip(np.where(better, damping / 5, damping * 8), 1e-12, 1e12)
    return theta


def solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Solutions of S symmetric systems [S, P, P] x = [S, P], scaled to unit diagonal first."""
    scale = 1 / np.sqrt(np.maximum(np.einsum("spp->sp", matrix), 1e-300))
    scaled = matrix * scale[:, :, None] * scale[:, None, :] + 1e-13 * np.eye(matrix.shape[1])
    return scale * np.linalg.solve(scaled, (scale * vector)[..., None])[..., 0]


def inverse_curvature(problem: Objective, theta: np.ndarray, sample: Sample) -> np.ndarray:
    """The initial inverse Hessian [S, P, P] of BFGS: the inverse Gauss–Newton curvature, damped."""
    curvature = problem.curvature(theta, sample)
    scale = 1 / np.sqrt(np.maximum(np.einsum("spp->sp", curvature), 1e-300))
    scale = np.minimum(scale, 1e6 * scale.min(axis=1, keepdims=True))
    scaled = curvature * scale[:, :, None] * scale[:, None, :]
    inverse = np.linalg.inv(scaled + 1e-8 * np.eye(theta.shape[1]))
    return inverse * scale[:, :, None] * scale[:, None, :]


def line_search(
    problem: Objective,
    theta: np.ndarray,
    value: np.ndarray,
    step: np.ndarray,
    slope: np.ndarray,
    sample: Sample,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backtracks each step until Armijo's condition holds. The value is inf if it never does."""
    length = np.ones(len(theta))
    best, gradient = theta.copy(), np.zeros_like(theta)
    lowest = np.full(len(theta), np.inf)
    active = np.arange(len(theta))
    for _ in range(25):
        trial = theta[active] + length[active, None] * step[active]
        trial_value, trial_gradient = problem.value_and_gradient(trial, sample.rows(active))
        enough = value[active] + SUFFICIENT_DECREASE * length[active] * slope[active]
        done = trial_value <= enough
        best[active[done]] = trial[done]
        lowest[active[done]] = trial_value[done]
        gradient[active[done]] = trial_gradient[done]
        active = active[~done]
        if not len(active):
            break
        length[active] *= SHRINK
    return best, lowest, gradient


def bfgs_update(inverse: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The BFGS update of S inverse Hessians. Those whose step has no positive curvature are
    unchanged.
    """
    along = (step * change).sum(-1)
    norms = np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
    rate = np.where(along > 1e-14 * norms, 1 / np.where(along == 0, 1.0, along), 0.0)
    pushed = np.einsum("spq,sq->sp", inverse, change)
    grown = (1 + (pushed * change).sum(-1) * rate) * rate
    cross = pushed[:, :, None] * step[:, None, :]
    outer = step[:, :, None] * step[:, None, :]
    mixed = rate[:, None, None] * (cross + cross.transpose(0, 2, 1))
    return inverse + grown[:, None, None] * outer - mixed


def bfgs(
    problem: Objective,
    theta: np.ndarray,
    sample: Sample,
    steps: int = 300,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Minima [S, P] and their values [S]. Problems that have converged leave the batch."""
    theta = theta.copy()
    value, gradient = problem.value_and_gradient(theta, sample)
    inverse = inverse_curvature(problem, theta, sample)
    active = np.arange(len(theta))
    for _ in range(steps):
        step = -np.einsum("spq,sq->sp", inverse[active], gradient[active])
        slope = (step * gradient[active]).sum(-1)
        trial, lowest, trial_gradient = line_search(
            problem, theta[active], value[active], step, slope, sample.rows(active)
        )
        moved = np.isfinite(lowest)
        change = trial_gradient[moved] - gradient[active[moved]]
        walked = trial[moved] - theta[active[moved]]
        index = active[moved]
        inverse[index] = bfgs_update(inverse[index], walked, change)
        theta[index], value[index] = trial[moved], lowest[moved]
        gradient[index] = trial_gradient[moved]
        active = active[moved & (-slope >= tolerance * np.maximum(value[active], 1e-300))]
        if not len(active):
            break
    return theta, value
