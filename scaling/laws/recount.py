"""How the count of parameters changes an exponent: Pearce & Song 2024, arXiv:2406.12907.

Kaplan et al. 2020 excluded the embeddings from N and found N* ∝ C^0.73. Hoffmann et al. 2022 found
C^0.50. Small models are mostly embeddings, so N* without embeddings appears to grow faster.
"""

from collections.abc import Mapping

import numpy as np

FEWEST_SIZES = 4


def efficient_tokens(
    constants: Mapping[str, float], total: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    """The tokens D at which models with `total` parameters are compute-optimal for C = 6 N D. N is
    another count of their parameters, and `slope` is d log N_total / d log N.

    The minimum of A N_total^-α + B D^-β along N D = const has α A N_total^-α slope = β B D^-β.
    """
    a, b, alpha, beta = (constants[name] for name in ("A", "B", "alpha", "beta"))
    return (beta * b / (alpha * a * slope) * total**alpha) ** (1 / beta)


def ladder_exponent(
    constants: Mapping[str, float], params: np.ndarray, total: np.ndarray
) -> float | None:
    """The exponent a of N* ∝ C^a for the count `params` [n], given a law with `constants` A, B,
    alpha, beta in the count `total` [n]. It is the slope of N*(C) over the sizes of the ladder.

    None for fewer than FEWEST_SIZES sizes, or if `total` does not increase with `params`.
    """
    log_n, first = np.unique(np.log(params), return_index=True)
    log_total = np.log(total)[first]
    if len(log_n) < FEWEST_SIZES:
        return None
    from scipy.interpolate import PchipInterpolator  # takes most of a second to import

    slope = PchipInterpolator(log_n, log_total).derivative()(log_n)
    if not (slope > 0).all():
        return None
    log_c = log_n + np.log(efficient_tokens(constants, np.exp(log_total), slope))
    return float(np.polyfit(log_c, log_n, 1)[0])
