"""The compute-optimal split N*(C), D*(C) of a law E + A N^-α + B D^-β with C = 6 N D.

The coordinates are those of `Law.split_coordinates`: log A, log B, log E, α, β.
"""

import numpy as np


def optimal_params(theta: np.ndarray, flops: np.ndarray) -> np.ndarray:
    """N*(C) = G (C/6)^a, G = (αA/βB)^(1/(α+β)). Hoffmann et al. 2022, eq. 4. theta [..., 5]."""
    log_a, log_b, _, alpha, beta = np.moveaxis(np.asarray(theta), -1, 0)
    with np.errstate(invalid="ignore", over="ignore"):
        log_g = (np.log(alpha / beta) + log_a - log_b) / (alpha + beta)
        return np.exp(log_g + beta / (alpha + beta) * np.log(np.asarray(flops) / 6))


def optimum(theta: np.ndarray, flops: float) -> dict[str, np.ndarray]:
    """N*, D*, their ratio and the loss [S] at C = 6 N D, for theta [S, 5]."""
    (a, b, e), (alpha, beta) = amplitudes(theta), theta.T[3:]
    params = optimal_params(theta, np.array(flops))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        tokens = flops / 6 / params
        reducible = a * params**-alpha + b * tokens**-beta
    return {
        "params": params,
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "loss": e + reducible,
    }


def frontier_constants(theta: np.ndarray) -> dict[str, np.ndarray]:
    """E, K and γ [S] of the loss L(C) = E + K C^-γ along N*(C), for theta [S, 5]."""
    (a, b, e), (alpha, beta) = amplitudes(theta), theta.T[3:]
    gamma = alpha * beta / (alpha + beta)
    best = optimal_params(theta, np.array(6.0))
    with np.errstate(invalid="ignore", over="ignore"):
        excess = a * best**-alpha + b * best**beta
    # At C = 6, N D = 1. The excess loss is proportional to C^-γ.
    return {"E": e, "K": excess * 6**gamma, "gamma": gamma}


def amplitudes(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B and E [S]; inf if the amplitude of a degenerate fit overflows."""
    with np.errstate(over="ignore"):
        return tuple(np.exp(theta.T[:3]))
