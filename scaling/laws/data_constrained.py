"""The law of repeated data: Muennighoff et al. 2023."""

import numpy as np

from scaling.laws.additive import READ, SPLIT, additive_starts
from scaling.laws.law import Inputs, Law, log_sum, power_law_bounds, unstack


def data_constrained(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(N, D, U) = E + A N^-α + B D'^-β with D' = U + U R* (1 - e^(-R/R*)), R = D/U - 1 repeats of
    U unique tokens.

    Muennighoff et al. 2023, eq. 5, the data side; the last coordinate is log R*.
    """
    a, b, e, alpha, beta, log_r = unstack(theta)
    log_n, log_u = x["params"], x["unique_tokens"]
    repeats = np.maximum(np.exp(x["tokens"] - log_u) - 1, 0)
    scale = np.exp(log_r)
    decay = np.exp(-repeats / np.maximum(scale, 1e-300))
    worth = 1 + scale * (1 - decay)
    log_d = log_u + np.log(worth)
    log_loss, (of_n, of_d, of_e) = log_sum(a - alpha * log_n, b - beta * log_d, e)
    worth_slope = (scale * (1 - decay) - repeats * decay) / worth
    gradient = [of_n, of_d, of_e, -of_n * log_n, -of_d * log_d, -of_d * beta * worth_slope]
    return log_loss, np.stack(gradient, axis=1)


def data_constrained_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """The starts of `parametric`, each with R* = 2, 8 and 32 (Muennighoff et al. fitted 15.4)."""
    base = additive_starts(x, log_loss)
    repeats = [np.full((len(base), 1), np.log(r)) for r in (2.0, 8.0, 32.0)]
    return np.concatenate([np.hstack([base, column]) for column in repeats])


LAWS = (
    Law(
        name="data_constrained",
        formula="L(N, D, U) = E + A N^-alpha + B D'^-beta, D' = U (1 + R* (1 - exp(-R/R*)))",
        paper="Muennighoff et al. 2023, arXiv:2305.16264, eq. 5",
        inputs=("params", "tokens", "unique_tokens"),
        coordinates=("log_A", "log_B", "log_E", "alpha", "beta", "log_R"),
        function=data_constrained,
        grid=data_constrained_starts,
        bounds=power_law_bounds(*READ),
        exponents=READ,
        floor="E",
        split=SPLIT,
        constant_inputs=("unique_tokens",),
    ),
)
