"""How the way of counting parameters changes an exponent: Pearce & Song 2024, arXiv:2406.12907.

Kaplan et al. 2020 left the embeddings out of N, and found N* ∝ C^0.73 where Hoffmann et al. 2022
found C^0.50. Small models are mostly embeddings, so that the same optima, counted without them,
seem to grow faster.
"""

from collections.abc import Mapping

import numpy as np

FEWEST_SIZES = 4


def efficient_tokens(
    constants: Mapping[str, float], total: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    """The tokens D at which models of `total` parameters are compute-optimal, C = 6 N D, where N is
    another count of them and `slope` is d log N_total / d log N.

    The minimum of A N_total^-α + B D^-β along N D = const has α A N_total^-α slope = β B D^-β.
    """
    a, b, alpha, beta = (constants[name] for name in ("A", "B", "alpha", "beta"))
    return (beta * b / (alpha * a * slope) * total**alpha) ** (1 / beta)


def ladder_exponent(
    constants: Mapping[str, float], params: np.ndarray, total: np.ndarray
) -> float | None:
    """The exponent a of N* ∝ C^a under the count `params` [n] of a ladder whose law, with
    `constants` A, B, alpha, beta, holds for `total` [n]: the slope of N*(C) over its sizes.

    None for fewer than FEWEST_SIZES sizes, or where `total` does not rise with `params`.
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
