"""The law of post-training quantisation: Kumar et al. 2024, the loss that few bits add."""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from scaling.laws.law import Inputs, Law, unstack

DECAYS = (0.2, 0.4, 0.7, 1.0, 2.0)  # bits in which the degradation falls by a factor e
EXPONENTS = (0.0, 0.3, 0.7)
SIGNIFICANT = 2  # standard errors above 0 at which a degradation counts as measured


def post_training(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """log δ, δ(N, D, P) = C D^γD N^-γN e^(-P/γ) nats, P bits a weight: Kumar et al. 2024,
    section 3."""
    log_c, gamma_d, gamma_n, gamma = unstack(theta)
    bits = np.exp(x["bits"])
    log_delta = log_c + gamma_d * x["tokens"] - gamma_n * x["params"] - bits / gamma
    ones = np.ones_like(log_delta)
    slopes = [ones, ones * x["tokens"], -ones * x["params"], bits / gamma**2]
    return log_delta, np.stack(slopes, axis=1)


def starts(x: Inputs, log_response: np.ndarray) -> np.ndarray:
    """A grid over the exponents and the decay, each through the median point."""
    middle, bits = np.median(log_response), np.median(np.exp(x["bits"]))
    log_n, log_d = np.median(x["params"]), np.median(x["tokens"])
    return np.array(
        [
            [middle + bits / gamma + n * log_n - d * log_d, d, n, gamma]
            for d, n, gamma in product(EXPONENTS, EXPONENTS, DECAYS)
        ]
    )


def significant(point: Mapping[str, Any]) -> bool:
    """Whether a degradation is above 0 by SIGNIFICANT standard errors."""
    return point["degradation"] > SIGNIFICANT * (point["degradation_se"] or 0)


LAWS = (
    Law(
        name="precision",
        formula="delta(N, D, P) = C D^gamma_D N^-gamma_N exp(-P/gamma)",
        paper="Kumar et al. 2024, arXiv:2411.04330, section 3",
        inputs=("params", "tokens", "bits"),
        coordinates=("log_C", "gamma_D", "gamma_N", "gamma"),
        function=post_training,
        grid=starts,
        response="degradation",
        bounds={"gamma_D": (-3.0, 3.0), "gamma_N": (-3.0, 3.0), "gamma": (0.05, 20.0)},
        exponents={"gamma_D": "tokens", "gamma_N": "params"},
    ),
)
