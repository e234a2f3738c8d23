"""Minimises many small smooth problems at once: all starts, or all bootstrap draws, in one batch.

A problem has about five coordinates and 15 to a few hundred points, so a Python loop over fits
would be dominated by overhead. Both methods below have a leading axis S of independent problems.
Levenberg–Marquardt is robust far from the optimum. BFGS, scaled by the Gauss–Newton curvature,
converges to full precision: it stops when the expected decrease is below 1e-13 of the objective.
Looser stopping rules have led to wrong published exponents (Besiroglu et al. 2024).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

TOLERANCE = 1e-13
TINY = 1e-300  # avoids division by zero
# Levenberg–Marquardt.
FIRST_DAMPING = 1e-2
LEAST_DIAGONAL = 1e-30  # added to the damped diagonal, which may be zero
# Line search.
SUFFICIENT_DECREASE = 1e-4  # Armijo's constant
SHRINK = 0.4
# Conditioning, relative to a unit diagonal.
SOLVE_RIDGE = 1e-13  # near float64's resolution: only keeps singular systems solvable
INVERSE_RIDGE = 1e-8  # larger: BFGS corrects the inverse anyway
MOST_SCALE = 1e6  # largest ratio of the coordinates' scales; flat directions get short steps
LEAST_COSINE = 1e-14  # between a step and the change of gradient: below it, no BFGS update


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


class SmoothFunction(Protocol):
    """The interface of a problem at its coordinates theta [S, P]."""

    def value_and_gradient(
        self, theta: np.ndarray, sample: Sample
    ) -> tuple[np.ndarray, np.ndarray]:
        """The values [S] and their gradients [S, P]."""
        ...

    def curvature(self, theta: np.ndarray, sample: Sample) -> np.ndarray:
        """The Gauss–Newton approximation [S, P, P] of the Hessians."""
        ...


def levenberg_marquardt(
    problem: SmoothFunction, theta: np.ndarray, sample: Sample, steps: int = 30
) -> np.ndarray:
    """Damped Gauss–Newton steps with Marquardt's diagonal scaling, from starts [S, P]."""
    identity = np.eye(theta.shape[1])
    damping = np.full(len(theta), FIRST_DAMPING)
    value, gradient = problem.value_and_gradient(theta, sample)
    for _ in range(steps):
        curvature = problem.curvature(theta, sample)
        diagonal = np.einsum("spp->sp", curvature)
        damped = curvature + (damping[:, None] * diagonal + LEAST_DIAGONAL)[:, :, None] * identity
        trial = theta - solve(damped, gradient)
        trial_value, trial_gradient = problem.value_and_gradient(trial, sample)
        better = trial_value < value
        theta = np.where(better[:, None], trial, theta)
        value = np.where(better, trial_value, value)
        gradient = np.where(better[:, None], trial_gradient, gradient)
        damping = np.clip(np.where(better, damping / 5, damping * 8), 1e-12, 1e12)
    return theta


def diagonal_scale(matrix: np.ndarray) -> np.ndarray:
    """The factors [S, P] that scale the rows and columns of [S, P, P] to a unit diagonal."""
    return 1 / np.sqrt(np.maximum(np.einsum("spp->sp", matrix), TINY))


def scale_both(matrix: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The matrices [S, P, P] with rows and columns multiplied by [S, P]."""
    return matrix * scale[:, :, None] * scale[:, None, :]


def solve(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Solutions of S symmetric systems [S, P, P] x = [S, P], scaled to unit diagonal first."""
    scale = diagonal_scale(matrix)
    scaled = scale_both(matrix, scale) + SOLVE_RIDGE * np.eye(matrix.shape[1])
    return scale * np.linalg.solve(scaled, (scale * vector)[..., None])[..., 0]


def inverse_curvature(problem: SmoothFunction, theta: np.ndarray, sample: Sample) -> np.ndarray:
    """The initial inverse Hessian [S, P, P] of BFGS: the inverse Gauss–Newton curvature, damped."""
    curvature = problem.curvature(theta, sample)
    scale = diagonal_scale(curvature)
    scale = np.minimum(scale, MOST_SCALE * scale.min(axis=1, keepdims=True))
    scaled = scale_both(curvature, scale)
    return scale_both(np.linalg.inv(scaled + INVERSE_RIDGE * np.eye(theta.shape[1])), scale)


def line_search(
    problem: SmoothFunction,
    theta: np.ndarray,
    value: np.ndarray,
    step: np.ndarray,
    slope: np.ndarray,
    sample: Sample,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Backtracks each step until Armijo's condition holds: the coordinates [S, P], values [S] and
    gradients [S, P] there. The value is inf if it never holds.
    """
    accepted = theta + step
    accepted_value, gradient = problem.value_and_gradient(accepted, sample)
    failed = ~(accepted_value <= value + SUFFICIENT_DECREASE * slope)
    accepted[failed], accepted_value[failed], gradient[failed] = theta[failed], np.inf, 0
    active, length = np.flatnonzero(failed), 1.0
    for _ in range(24):
        if not len(active):
            break
        length *= SHRINK
        trial = theta[active] + length * step[active]
        trial_value, trial_gradient = problem.value_and_gradient(trial, sample.rows(active))
        done = trial_value <= value[active] + SUFFICIENT_DECREASE * length * slope[active]
        accepted[active[done]] = trial[done]
        accepted_value[active[done]] = trial_value[done]
        gradient[active[done]] = trial_gradient[done]
        active = active[~done]
    return accepted, accepted_value, gradient


def bfgs_update(inverse: np.ndarray, step: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The BFGS update of S inverse Hessians. Those whose step has no positive curvature are
    unchanged.
    """
    along = (step * change).sum(-1)
    norms = np.linalg.norm(step, axis=1) * np.linalg.norm(change, axis=1)
    rate = np.where(along > LEAST_COSINE * norms, 1 / np.where(along == 0, 1.0, along), 0.0)
    pushed = np.einsum("spq,sq->sp", inverse, change)
    grown = (1 + (pushed * change).sum(-1) * rate) * rate
    cross = pushed[:, :, None] * step[:, None, :]
    outer = step[:, :, None] * step[:, None, :]
    mixed = rate[:, None, None] * (cross + cross.transpose(0, 2, 1))
    return inverse + grown[:, None, None] * outer - mixed


def bfgs(
    problem: SmoothFunction,
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
        trial, trial_value, trial_gradient = line_search(
            problem, theta[active], value[active], step, slope, sample.rows(active)
        )
        accepted = np.isfinite(trial_value)
        index = active[accepted]
        step_taken = trial[accepted] - theta[index]
        change = trial_gradient[accepted] - gradient[index]
        inverse[index] = bfgs_update(inverse[index], step_taken, change)
        theta[index], value[index] = trial[accepted], trial_value[accepted]
        gradient[index] = trial_gradient[accepted]
        active = active[accepted & (-slope >= tolerance * np.maximum(value[active], TINY))]
        if not len(active):
            break
    return theta, value
