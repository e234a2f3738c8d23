"""The law of repeated sampling: Brown et al. 2024, the coverage of k samples for each problem."""

import numpy as np

from scaling.laws.law import Inputs, Law, unstack

EXPONENTS = (-2.0, -1.0, -0.6, -0.4, -0.2, -0.1, -0.05)


def pass_at_k(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """log pass@k = a k^b, with a < 0 and b < 0. Brown et al. 2024, eq. 3."""
    a, b = unstack(theta)
    power = np.exp(b * x["k"])
    return a * power, np.stack([power, a * power * x["k"]], axis=1)


def starts(x: Inputs, log_response: np.ndarray) -> np.ndarray:
    """Exponents, each with the median of what a would be at each point."""
    return np.array([[-abs(np.median(log_response * np.exp(-b * x["k"]))), b] for b in EXPONENTS])


LAWS = (
    Law(
        name="pass_at_k",
        formula="pass@k = exp(a k^b)",
        paper="Brown et al. 2024, arXiv:2407.21787, eq. 3",
        inputs=("k",),
        coordinates=("a", "b"),
        function=pass_at_k,
        grid=starts,
        response="pass_at_k",
        better="up",
        bounds={"a": (-np.inf, 0.0), "b": (-5.0, 0.0)},
        exponents={"b": "k"},
    ),
)
