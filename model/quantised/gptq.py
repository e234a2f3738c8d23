"""GPTQ: rounds a matrix so that its outputs on calibration text change little.

Frantar et al. 2022 (arXiv:2210.17323), section 3. The inputs are rounded in order. The inverse of
H = 2 X X^T, the Hessian of the outputs' squared error, distributes the error of each over the
inputs after it. Scales are those of the unrounded matrix, so the same formats can store the result.
"""

import numpy as np

from model.quantised.formats import Grid, nearest

DAMPING = 0.01  # of the mean diagonal, added to it: section 3.3
BLOCK = 128  # inputs whose errors reach the rest at once: section 3.3, lazy batch updates


def calibrated(kernel: np.ndarray, hessian: np.ndarray, grid: Grid) -> np.ndarray:
    """The codes uint8 [I, O] of a kernel [I, O], given sums of x x^T [I, I] over its inputs. Inputs
    that are always 0 are rounded to nearest."""
    weights = kernel.astype(np.float64)
    factor = _inverse_factor(hessian)
    codes = np.empty(kernel.shape, np.uint8)
    for first in range(0, len(weights), BLOCK):
        last = min(first + BLOCK, len(weights))
        errors = np.zeros((last - first, weights.shape[1]))
        for i in range(first, last):
            codes[i] = nearest(grid.levels, weights[i], grid.scales[i])
            rounded = grid.levels[codes[i]].astype(np.float64) * grid.scales[i]
            errors[i - first] = (weights[i] - rounded) / factor[i, i]
            weights[i + 1 : last] -= np.outer(factor[i, i + 1 : last], errors[i - first])
        weights[last:] -= factor[first:last, last:].T @ errors
    return codes


def _inverse_factor(hessian: np.ndarray) -> np.ndarray:
    """The upper Cholesky factor U of the damped inverse Hessian, H^-1 = U^T U, [I, I]."""
    hessian = hessian.astype(np.float64)
    diagonal = np.diag(hessian).copy()
    dead = diagonal == 0
    damped = hessian + np.diag(np.where(dead, 1.0, DAMPING * (diagonal.mean() or 1.0)))
    return np.linalg.cholesky(np.linalg.inv(damped)).T
