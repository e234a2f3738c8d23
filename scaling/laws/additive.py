"""Laws that are a sum of a term in N and a term in D: Hoffmann et al. 2022, approach 3."""

from itertools import product

import numpy as np

from scaling.laws.law import (
    EXPONENTS,
    SHARES,
    Inputs,
    Law,
    log_sum,
    power_law_bounds,
    unstack,
    without_floor,
)

HOFFMANN = "Hoffmann et al. 2022, arXiv:2203.15556, approach 3"
SPLIT = ("A", "B", "E", "alpha", "beta")
READ = {"alpha": "params", "beta": "tokens", "gamma": "flops"}


def parametric(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(N, D) = E + A N^-α + B D^-β. Hoffmann et al. 2022, eq. 2, in the log-sum form of eq. 3."""
    a, b, e, alpha, beta = unstack(theta)
    log_n, log_d = x["params"], x["tokens"]
    log_loss, (of_n, of_d, of_e) = log_sum(a - alpha * log_n, b - beta * log_d, e)
    return log_loss, np.stack([of_n, of_d, of_e, -of_n * log_n, -of_d * log_d], axis=1)


def additive_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """Every pair of exponents × every split of the median loss into the three terms."""
    middle, log_n, log_d = np.median(log_loss), np.median(x["params"]), np.median(x["tokens"])
    return np.array(
        [
            [
                middle + np.log(share_n) + alpha * log_n,
                middle + np.log(share_d) + beta * log_d,
                middle + np.log(1 - share_n - share_d),
                alpha,
                beta,
            ]
            for alpha, beta, (share_n, share_d) in product(EXPONENTS, EXPONENTS, SHARES)
        ]
    )


LAWS = (
    Law(
        name="parametric",
        formula="L(N, D) = E + A N^-alpha + B D^-beta",
        paper=HOFFMANN,
        inputs=("params", "tokens"),
        coordinates=("log_A", "log_B", "log_E", "alpha", "beta"),
        function=parametric,
        grid=additive_starts,
        bounds=power_law_bounds(*READ),
        exponents=READ,
        floor="E",
        split=SPLIT,
    ),
    Law(
        name="parametric_without_floor",
        formula="L(N, D) = A N^-alpha + B D^-beta",
        paper=HOFFMANN + ", with E = 0",
        inputs=("params", "tokens"),
        coordinates=("log_A", "log_B", "alpha", "beta"),
        function=without_floor(parametric),
        grid=lambda x, log_loss: np.delete(additive_starts(x, log_loss), 2, axis=1),
        bounds=power_law_bounds("alpha", "beta"),
        exponents={"alpha": "params", "beta": "tokens"},
    ),
)
