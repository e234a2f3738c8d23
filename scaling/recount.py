"""This file sees a law through another count of parameters: Pearce & Song 2024, arXiv:2406.12907.

Kaplan et al. 2020 left the embeddings out of N, and found N* ∝ C^0.73 where Hoffmann et al. 2022
found C^0.50. Small models are mostly embeddings, so that the same optima, counted without them,
seem to grow faster.
"""

import numpy as np

# N_total = N + EMBEDDING N^(1/3), N without embeddings: their fit to the Chinchilla family, whose
# vocabulary is 32,000 and whose width is about 39 times its depth.
EMBEDDING = 47_491.0
# The budgets of their figures, from which models of Kaplan's sizes, 768 to 1.5e9, come out best.
BUDGETS = {False: (10**12.95, 10**20.7), True: (10**13.4, 10**20.7)}
FINENESS = 4000


def total_params(params: np.ndarray, embedding: float = EMBEDDING) -> np.ndarray:
    """N with embeddings of N without them, eq. 4."""
    return params + embedding * np.cbrt(params)


def recounted_optima(
    constants: dict[str, float],
    flops: np.ndarray,
    embedding: float = EMBEDDING,
    with_embeddings: bool = False,
) -> np.ndarray:
    """N*(C) [n] of L = E + A N_total^-α + B D^-β where N and C = 6 N D both leave the embeddings
    out (or both hold them).
    """
    bare = np.geomspace(10, 1e13, FINENESS)
    held = total_params(bare, embedding)
    counted = held if with_embeddings else bare
    tokens = flops[:, None] / (6 * counted)
    reducible = (
        constants["A"] * held ** -constants["alpha"] + constants["B"] * tokens ** -constants["beta"]
    )
    return counted[np.argmin(reducible, axis=1)]


def recounted_exponent(
    constants: dict[str, float],
    embedding: float = EMBEDDING,
    with_embeddings: bool = False,
    budgets: tuple[float, float] | None = None,
) -> float:
    """The exponent a of N* ∝ C^a that a study of such budgets (Kaplan's, if none are given) would
    find: a straight line through 100 optima.

    .775 for the law of Besiroglu et al. 2024 without embeddings, .5126 with them.

    """
    flops = np.geomspace(*(budgets or BUDGETS[with_embeddings]), 100)
    optima = recounted_optima(constants, flops, embedding, with_embeddings)
    return float(np.polyfit(np.log(flops), np.log(optima), 1)[0])


def fit_embedding(params: np.ndarray, total: np.ndarray) -> float:
    """The constant of `total_params` that suits a family of models: their geometric mean."""
    return float(np.exp(np.mean(np.log((total - params) / np.cbrt(params)))))
