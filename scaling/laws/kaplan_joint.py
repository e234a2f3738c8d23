"""The joint law of N and D of Kaplan et al. 2020, eq. 1.5, with and without an irreducible loss."""

from itertools import product

import numpy as np

from scaling.laws.law import Inputs, Law, log_sum, power_law_bounds, unstack, with_floor
from scaling.laws.power import KAPLAN

READ = {"alpha_N": "params", "alpha_D": "tokens"}


def kaplan_joint(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(N, D) = [(Nc/N)^(αN/αD) + Dc/D]^αD; coordinates log Nc, log Dc, αN, αD."""
    n_c, d_c, alpha_n, alpha_d = unstack(theta)
    over_n, over_d = n_c - x["params"], d_c - x["tokens"]
    ratio = alpha_n / alpha_d
    inner, (of_n, of_d) = log_sum(ratio * over_n, over_d)
    gradient = [alpha_n * of_n, alpha_d * of_d, of_n * over_n, inner - ratio * of_n * over_n]
    return alpha_d * inner, np.stack(gradient, axis=1)


def kaplan_joint_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """Grid over small exponents and the loss from each term alone at the median point."""
    middle, log_n, log_d = np.median(log_loss), np.median(x["params"]), np.median(x["tokens"])
    return np.array(
        [
            [log_n + (middle - half) / alpha_n, log_d + (middle - half) / alpha_d, alpha_n, alpha_d]
            for alpha_n, alpha_d, half in product(
                (0.05, 0.1, 0.2, 0.4), (0.05, 0.1, 0.2, 0.4), (0.1, 0.5, 1.0)
            )
        ]
    )


def joint_floor_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """The starts of `kaplan_joint` for a third and two thirds of the loss; E is the rest."""
    rows = []
    for share in (1 / 3, 2 / 3):
        above = kaplan_joint_starts(x, log_loss + np.log(share))
        floor = np.median(log_loss) + np.log1p(-share)
        rows.append(np.hstack([above, np.full((len(above), 1), floor)]))
    return np.concatenate(rows)


LAWS = (
    Law(
        name="kaplan_joint",
        formula="L(N, D) = [(Nc/N)^(alpha_N/alpha_D) + Dc/D]^alpha_D",
        paper=KAPLAN + ", eq. 1.5",
        inputs=("params", "tokens"),
        coordinates=("log_Nc", "log_Dc", "alpha_N", "alpha_D"),
        function=kaplan_joint,
        grid=kaplan_joint_starts,
        bounds=power_law_bounds(*READ),
        exponents=READ,
    ),
    Law(
        name="kaplan_joint_with_floor",
        formula="L(N, D) = E + [(Nc/N)^(alpha_N/alpha_D) + Dc/D]^alpha_D",
        paper=KAPLAN + ", eq. 1.5, with an irreducible loss",
        inputs=("params", "tokens"),
        coordinates=("log_Nc", "log_Dc", "alpha_N", "alpha_D", "log_E"),
        function=with_floor(kaplan_joint),
        grid=joint_floor_starts,
        bounds=power_law_bounds(*READ),
        exponents=READ,
        floor="E",
    ),
)
