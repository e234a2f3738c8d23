"""Power laws in one column: Kaplan et al. 2020, eq. 1.1–1.3; with E, Henighan et al. 2020."""

from collections.abc import Callable
from itertools import product

import numpy as np

from scaling.laws.law import (
    EXPONENTS,
    Evaluate,
    Inputs,
    Law,
    log_sum,
    power_law_bounds,
    unstack,
)

KAPLAN = "Kaplan et al. 2020, arXiv:2001.08361"
HENIGHAN = "Henighan et al. 2020, arXiv:2010.14701"


def power(column: str, floor: bool) -> Evaluate:
    """L(X) = E + K X^-γ; without a floor, L(X) = K X^-γ."""

    def with_e(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        k, e, gamma = unstack(theta)
        log_loss, (of_k, of_e) = log_sum(k - gamma * x[column], e)
        return log_loss, np.stack([of_k, of_e, -of_k * x[column]], axis=1)

    def without_e(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        k, gamma = unstack(theta)
        log_loss = k - gamma * x[column]
        ones = np.ones_like(log_loss)
        return log_loss, np.stack([ones, -ones * x[column]], axis=1)

    return with_e if floor else without_e


def power_starts(column: str, floor: bool) -> Callable[[Inputs, np.ndarray], np.ndarray]:
    """Grid over the exponent and the share of the reducible part in the median loss."""

    def starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
        middle, log_x = np.median(log_loss), np.median(x[column])
        grid = product((0.02, 0.05, *EXPONENTS), (0.05, 0.2, 0.5, 0.9) if floor else (1.0,))
        rows = [
            (middle + np.log(s) + g * log_x, np.log1p(-s) + middle if floor else 0, g)
            for g, s in grid
        ]
        return np.array([row if floor else (row[0], row[2]) for row in rows])

    return starts


def power_law(name: str, column: str, floor: bool, formula: str, paper: str) -> Law:
    """The Law in one column."""
    return Law(
        name=name,
        formula=formula,
        paper=paper,
        inputs=(column,),
        coordinates=("log_K", "log_E", "gamma") if floor else ("log_K", "gamma"),
        function=power(column, floor),
        grid=power_starts(column, floor),
        bounds=power_law_bounds("gamma"),
        exponents={"gamma": column},
        floor="E" if floor else None,
    )


LAWS = (
    power_law("frontier", "flops", True, "L(C) = E + K C^-gamma", HENIGHAN),
    power_law("frontier_without_floor", "flops", False, "L(C) = K C^-gamma", KAPLAN + ", eq. 1.3"),
    power_law("params_only", "params", True, "L(N) = E + K N^-gamma", HENIGHAN),
    power_law(
        "params_only_without_floor", "params", False, "L(N) = K N^-gamma", KAPLAN + ", eq. 1.1"
    ),
    power_law("tokens_only", "tokens", True, "L(D) = E + K D^-gamma", HENIGHAN),
    power_law(
        "tokens_only_without_floor", "tokens", False, "L(D) = K D^-gamma", KAPLAN + ", eq. 1.2"
    ),
    power_law("examples_only", "examples", True, "L(M) = E + K M^-gamma", HENIGHAN),
)
