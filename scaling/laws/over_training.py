"""The law of Gadre et al. 2024 in compute and tokens per parameter, with and without E."""

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

GADRE = "Gadre et al. 2024, arXiv:2403.08540"


def over_training(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(C, M) = E + (a M^η + b M^-η) C^-η with M = D/N. Gadre et al. 2024, eq. 4."""
    a, b, e, eta = unstack(theta)
    log_m, log_c = x["tokens"] - x["params"], x["flops"]
    up, down = log_m - log_c, -log_m - log_c
    log_loss, (of_a, of_b, of_e) = log_sum(a + eta * up, b + eta * down, e)
    return log_loss, np.stack([of_a, of_b, of_e, of_a * up + of_b * down], axis=1)


def over_training_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """Grid over η and the shares of the two reducible terms at the median point."""
    middle = np.median(log_loss)
    log_m, log_c = np.median(x["tokens"] - x["params"]), np.median(x["flops"])
    return np.array(
        [
            [
                middle + np.log(up) - eta * (log_m - log_c),
                middle + np.log(down) + eta * (log_m + log_c),
                middle + np.log(1 - up - down),
                eta,
            ]
            for eta, (up, down) in product((0.03, 0.07, *EXPONENTS), SHARES)
        ]
    )


LAWS = (
    Law(
        name="over_training_without_floor",
        formula="L(C, M) = (a_M M^eta + b_M M^-eta) C^-eta, M = D/N",
        paper=GADRE + ", with E = 0",
        inputs=("params", "tokens", "flops"),
        coordinates=("log_a_M", "log_b_M", "eta"),
        function=without_floor(over_training),
        grid=lambda x, log_loss: np.delete(over_training_starts(x, log_loss), 2, axis=1),
        bounds=power_law_bounds("eta"),
        exponents={"eta": "flops"},
    ),
    Law(
        name="over_training",
        formula="L(C, M) = E + (a_M M^eta + b_M M^-eta) C^-eta, M = D/N",
        paper=GADRE,
        inputs=("params", "tokens", "flops"),
        coordinates=("log_a_M", "log_b_M", "log_E", "eta"),
        function=over_training,
        grid=over_training_starts,
        bounds=power_law_bounds("eta"),
        exponents={"eta": "flops"},
        floor="E",
    ),
)
