"""The laws of reward over-optimisation: Gao et al. 2022. The gold reward is measured from that of
the initial policy, so it is 0 at a KL divergence of 0, and falls below 0 if the proxy is optimised
too far: the laws are fitted to the reward itself, not to its logarithm.
"""

import numpy as np

from scaling.laws.law import Evaluate, Inputs, Law, unstack

GAO = "Gao et al. 2022, arXiv:2210.10760"


def best_of_n(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """R(d) = d (α - β d), d = √KL. Gao et al. 2022, section 3.1."""
    return _reward(theta, np.exp(x["kl"] / 2), np.exp(x["kl"] / 2))


def reinforcement(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """R(d) = d (α - β log d), d = √KL. Gao et al. 2022, section 3.1."""
    return _reward(theta, np.exp(x["kl"] / 2), x["kl"] / 2)


def _reward(
    theta: np.ndarray, d: np.ndarray, loss_of_d: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """R = d (α - β f(d)) [S, n] and its slopes [S, 2, n], given f(d) [n]."""
    alpha, beta = unstack(theta)
    slopes = np.stack([d, -d * loss_of_d])
    return d * (alpha - beta * loss_of_d), np.tile(slopes, (len(theta), 1, 1))


def starts(x: Inputs, reward: np.ndarray) -> np.ndarray:
    """α from the largest R/d, β of either sign. The fit is convex: any start does."""
    d = np.exp(x["kl"] / 2)
    slope = float(np.max(reward / d)) or 1.0
    return np.array(
        [[slope * a, abs(slope) * b] for a in (0.5, 1.0, 2.0) for b in (-0.1, 0.0, 0.3)]
    )


def over_optimisation(name: str, formula: str, function: Evaluate, policy: str) -> Law:
    """The Law of one way to optimise."""
    return Law(
        name=name,
        formula=formula,
        paper=f"{GAO}, {policy}",
        inputs=("kl",),
        coordinates=("alpha", "beta"),
        function=function,
        grid=starts,
        response="gold_reward",
        better="up",
        linear=True,
    )


BEST_OF_N, RL = LAWS = (
    over_optimisation(
        "over_optimisation_best_of_n",
        "R(d) = d (alpha - beta d), d = sqrt(KL)",
        best_of_n,
        "best-of-n sampling",
    ),
    over_optimisation(
        "over_optimisation_rl",
        "R(d) = d (alpha - beta log d), d = sqrt(KL)",
        reinforcement,
        "reinforcement learning",
    ),
)
