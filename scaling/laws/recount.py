"""This file sees a law through another count of parameters: Pearce & Song 2024, arXiv:2406.12907.

Kaplan et al. 2020 left the embeddings out of N, and found N* ∝ C^0.73 where Hoffmann et al. 2022
found C^0.50. Small models are mostly embeddings, so that the same optima, counted without them,
seem to grow faster.
"""

from collections.abc import Mapping

import numpy as np
from scipy.interpolate import PchipInterpolator

# N_total = N + EMBEDDING N^(1/3), N without embeddings: their fit to the Chinchilla family, whose
# vocabulary is 32,000 and whose width is about 39 times its depth.
EMBEDDING = 47_491.0
# The budgets of their figures, at which models of Kaplan's sizes, 768 to 1.5e9, come out best.
BUDGETS = {False: (10**12.95, 10**20.7), True: (10**13.4, 10**20.7)}
FEWEST_SIZES = 4


def total_params(params: np.ndarray, embedding: float = EMBEDDING) -> np.ndarray:
    """N with embeddings of N without them, eq. 4."""
    return params + embedding * np.cbrt(params)


def efficient_tokens(
    constants: Mapping[str, float], total: np.ndarray, slope: np.ndarray
) -> np.ndarray:
    """The tokens D at which models of `total` parameters are compute-optimal, C = 6 N D, where N is
    another count of them and `slope` is d log N_total / d log N.

    The minimum of A N_total^-α + B D^-β along N D = const has α A N_total^-α slope = β B D^-β.

    """
    a, b, alpha, beta = (constants[name] for name in ("A", "B", "alpha", "beta"))
    return (beta * b / (alpha * a * slope) * total**alpha) ** (1 / beta)


def recounted_exponent(
    constants: Mapping[str, float], embedding: float = EMBEDDING, with_embeddings: bool = False
) -> float:
    """The exponent a of N* ∝ C^a that a study at Kaplan's scale would find: a straight line through
    the optima of 100 budgets.

    .775 for the law of Besiroglu et al. 2024 without embeddings, .5126 with them.

    """
    params = np.geomspace(1e-3, 1e15, 4000)
    total = total_params(params, embedding)
    slope = (params + embedding * np.cbrt(params) / 3) / total
    counted, growth = (total, np.ones(len(total))) if with_embeddings else (params, slope)
    flops = 6 * counted * efficient_tokens(constants, total, growth)
    budgets = np.linspace(*np.log(BUDGETS[with_embeddings]), 100)
    optima = np.interp(budgets, np.log(flops), np.log(counted))
    return float(np.polyfit(budgets, optima, 1)[0])


def ladder_exponent(
    constants: Mapping[str, float], params: np.ndarray, total: np.ndarray
) -> float | None:
    """The same for the models of a ladder, whose two counts are what they are: the slope of N*(C)
    over its sizes. None for fewer than FEWEST_SIZES.
    """
    log_n, first = np.unique(np.log(params), return_index=True)
    log_total = np.log(total)[first]
    if len(log_n) < FEWEST_SIZES:
        return None
    slope = PchipInterpolator(log_n, log_total).derivative()(log_n)
    if not (slope > 0).all():
        return None
    log_c = log_n + np.log(efficient_tokens(constants, np.exp(log_total), slope))
    return float(np.polyfit(log_c, log_n, 1)[0])
