"""This file holds the scaling laws: each a few lines with its gradient, in log space, and its
paper.

A law maps coordinates theta_SP (S sets of P coordinates at once: starts, or bootstrap draws) and
the logarithms x of its inputs [n] to log-loss [S, n] and its gradient [S, P, n]. Coordinates are
logarithms of the amplitudes and the plain exponents; `constants` turns them into the numbers that
papers print.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Law:
    """One law: its formula, where it was published, and what the fit engine needs to know."""

    name: str
    formula: str
    paper: str
    inputs: tuple[str, ...]
    coordinates: tuple[str, ...]
    evaluate: Callable[[np.ndarray, Inputs], tuple[np.ndarray, np.ndarray]]
    constants: Callable[[np.ndarray], dict[str, np.ndarray]]
    starts: Callable[[Inputs, np.ndarray], np.ndarray]

    def log_inputs(self, columns: Mapping[str, np.ndarray]) -> Inputs:
        """The logarithms of the columns that this law reads."""
        return {name: np.log(np.asarray(columns[name], float)) for name in self.inputs}

    def loss(self, theta: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Loss in nats at the given columns; [n] for one set of coordinates, [S, n] for many."""
        x = {name: np.atleast_1d(values) for name, values in self.log_inputs(columns).items()}
        log_loss, _ = self.evaluate(np.atleast_2d(theta), x)
        return np.exp(log_loss[0] if np.ndim(theta) == 1 else log_loss)


def log_sum(*terms: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Log of the sum of exponentials, and the share of each term in it: its gradient."""
    top = terms[0]
    for term in terms[1:]:
        top = np.maximum(top, term)
    parts = [np.exp(term - top) for term in terms]
    total = sum(parts)
    return top + np.log(total), [part / total for part in parts]


def split(theta: np.ndarray) -> list[np.ndarray]:
    """The coordinates one by one, each [S, 1] to broadcast against points."""
    return [theta[:, index, None] for index in range(theta.shape[1])]


def parametric(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(N, D) = E + A N^-α + B D^-β. Hoffmann et al. 2022, eq. 2, in the log-sum form of eq. 3."""
    a, b, e, alpha, beta = split(theta)
    log_n, log_d = x["params"], x["tokens"]
    log_loss, (of_n, of_d, of_e) = log_sum(a - alpha * log_n, b - beta * log_d, e)
    return log_loss, np.stack([of_n, of_d, of_e, -of_n * log_n, -of_d * log_d], axis=1)


def power(
    column: str, floor: bool
) -> Callable[[np.ndarray, Inputs], tuple[np.ndarray, np.ndarray]]:
    """L(X) = E + K X^-γ, or K X^-γ alone. Kaplan et al. 2020, eq. 1.1–1.3 without E; Henighan et
    al. 2020 with.
    """

    def with_floor(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        k, e, gamma = split(theta)
        log_loss, (of_k, of_e) = log_sum(k - gamma * x[column], e)
        return log_loss, np.stack([of_k, of_e, -of_k * x[column]], axis=1)

    def without_floor(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        k, gamma = split(theta)
        log_loss = k - gamma * x[column]
        ones = np.ones_like(log_loss)
        return log_loss, np.stack([ones, -ones * x[column]], axis=1)

    return with_floor if floor else without_floor


def over_training(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(C, M) = E + (a M^η + b M^-η) C^-η with M = D/N. Gadre et al. 2024, eq. 4."""
    a, b, e, eta = split(theta)
    log_m, log_c = x["tokens"] - x["params"], x["flops"]
    up, down = log_m - log_c, -log_m - log_c
    log_loss, (of_a, of_b, of_e) = log_sum(a + eta * up, b + eta * down, e)
    return log_loss, np.stack([of_a, of_b, of_e, of_a * up + of_b * down], axis=1)


def kaplan_joint(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(N, D) = [(Nc/N)^(αN/αD) + Dc/D]^αD. Kaplan et al. 2020, eq. 1.5; coordinates log Nc, log
    Dc, αN, αD.
    """
    n_c, d_c, alpha_n, alpha_d = split(theta)
    over_n, over_d = n_c - x["params"], d_c - x["tokens"]
    ratio = alpha_n / alpha_d
    inner, (of_n, of_d) = log_sum(ratio * over_n, over_d)
    gradient = [alpha_n * of_n, alpha_d * of_d, of_n * over_n, inner - ratio * of_n * over_n]
    return alpha_d * inner, np.stack(gradient, axis=1)


Evaluate = Callable[[np.ndarray, Inputs], tuple[np.ndarray, np.ndarray]]


def without_floor(evaluate: Evaluate, at: int = 2) -> Evaluate:
    """The law whose coordinate `at` is log E, without it: E = 0."""

    def bare(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        log_loss, slopes = evaluate(np.insert(theta, at, -np.inf, axis=1), x)
        return log_loss, np.delete(slopes, at, axis=1)

    return bare


def with_floor(evaluate: Evaluate) -> Evaluate:
    """The law plus E, whose logarithm is the last coordinate."""

    def raised(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        above, slopes = evaluate(theta[:, :-1], x)
        log_loss, (of_law, of_e) = log_sum(above, theta[:, -1:] + 0 * above)
        return log_loss, np.concatenate([slopes * of_law[:, None], of_e[:, None]], axis=1)

    return raised


def data_constrained(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
    """L(N, D, U) = E + A N^-α + B D'^-β with D' = U + U R* (1 - e^(-R/R*)), R = D/U - 1 repeats of
    U unique tokens.

    Muennighoff et al. 2023, eq. 5, the data side; the last coordinate is log R*.

    """
    a, b, e, alpha, beta, log_r = split(theta)
    log_n, log_u = x["params"], x["unique_tokens"]
    repeats = np.maximum(np.exp(x["tokens"] - log_u) - 1, 0)
    scale = np.exp(log_r)
    decay = np.exp(-repeats / np.maximum(scale, 1e-300))
    worth = 1 + scale * (1 - decay)
    log_d = log_u + np.log(worth)
    log_loss, (of_n, of_d, of_e) = log_sum(a - alpha * log_n, b - beta * log_d, e)
    worth_slope = (scale * (1 - decay) - repeats * decay) / worth
    gradient = [of_n, of_d, of_e, -of_n * log_n, -of_d * log_d, -of_d * beta * worth_slope]
    return log_loss, np.stack(gradient, axis=1)


EXPONENTS = (0.1, 0.2, 0.35, 0.55, 0.9)
SHARES = ((0.1, 0.2), (0.3, 0.3), (0.05, 0.05), (0.2, 0.6), (0.6, 0.2))


def additive_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """Starts for `parametric`: every pair of exponents × every split of the median loss into the
    three terms.
    """
    middle, log_n, log_d = np.median(log_loss), np.median(x["params"]), np.median(x["tokens"])
    return np.array(
        [
            [
                middle + np.log(share_n) + alpha * log_n,
                middle + np.log(share_d) + beta * log_d,
                middle + np.log(1 - share_n - share_d),
                alpha,
                beta,
            ]
            for alpha, beta, (share_n, share_d) in product(EXPONENTS, EXPONENTS, SHARES)
        ]
    )


def data_constrained_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """The starts of `parametric`, each with R* = 2, 8 and 32 (Muennighoff et al. found 15.4)."""
    base = additive_starts(x, log_loss)
    repeats = [np.full((len(base), 1), np.log(r)) for r in (2.0, 8.0, 32.0)]
    return np.concatenate([np.hstack([base, column]) for column in repeats])


def power_starts(column: str, floor: bool) -> Callable[[Inputs, np.ndarray], np.ndarray]:
    """Starts for `power`: exponents × the share of the reducible part in the median loss."""

    def starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
        middle, log_x = np.median(log_loss), np.median(x[column])
        grid = product((0.02, 0.05, *EXPONENTS), (0.05, 0.2, 0.5, 0.9) if floor else (1.0,))
        rows = [
            (middle + np.log(s) + g * log_x, np.log1p(-s) + middle if floor else 0, g)
            for g, s in grid
        ]
        return np.array([row if floor else (row[0], row[2]) for row in rows])

    return starts


def over_training_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """Starts for `over_training`: η × the shares of the two reducible terms at the median point."""
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


def kaplan_joint_starts(x: Inputs, log_loss: np.ndarray) -> np.ndarray:
    """Starts for `kaplan_joint`: small exponents, each term giving half of the median loss."""
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
    """The starts of `kaplan_joint` for a third or two thirds of the loss, the rest being E."""
    rows = []
    for share in (1 / 3, 2 / 3):
        above = kaplan_joint_starts(x, log_loss + np.log(share))
        floor = np.median(log_loss) + np.log1p(-share)
        rows.append(np.hstack([above, np.full((len(above), 1), floor)]))
    return np.concatenate(rows)


def additive_constants(theta: np.ndarray) -> dict[str, np.ndarray]:
    """A, B, E, alpha, beta and what follows: N* ∝ C^a, D* ∝ C^b, L* - E ∝ C^-gamma (Hoffmann et
    al. 2022, eq. 4).
    """
    a, b, e, alpha, beta = theta.T[:5]
    total = alpha + beta
    with np.errstate(over="ignore"):  # a draw of a hopeless fit may hold any A; it becomes null
        return {
            "A": np.exp(a),
            "B": np.exp(b),
            "E": np.exp(e),
            "alpha": alpha,
            "beta": beta,
            "a": beta / total,
            "b": alpha / total,
            "gamma": alpha * beta / total,
        }


def optimal_params(theta: np.ndarray, flops: np.ndarray) -> np.ndarray:
    """N*(C) = G (C/6)^a, G = (αA/βB)^(1/(α+β)), of the parametric law. Hoffmann et al. 2022, eq.
    4.
    """
    log_a, log_b, _, alpha, beta = np.moveaxis(np.asarray(theta), -1, 0)[:5]
    with np.errstate(invalid="ignore", over="ignore"):
        log_g = (np.log(alpha / beta) + log_a - log_b) / (alpha + beta)
        return np.exp(log_g + beta / (alpha + beta) * np.log(np.asarray(flops) / 6))


def power_law(name: str, column: str, floor: bool, formula: str, paper: str) -> Law:
    """A law of one column."""

    def constants(t: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(over="ignore"):  # as above
            scales = np.exp(t[:, :-1])
        named = dict(zip(("K", "E"), scales.T, strict=False))
        return named | {"gamma": t[:, -1]}

    return Law(
        name,
        formula,
        paper,
        (column,),
        ("log_K", "log_E", "gamma") if floor else ("log_K", "gamma"),
        power(column, floor),
        constants,
        power_starts(column, floor),
    )


KAPLAN = "Kaplan et al. 2020, arXiv:2001.08361"
HENIGHAN = "Henighan et al. 2020, arXiv:2010.14701"

_ALL = (
    Law(
        "parametric",
        "L(N, D) = E + A N^-alpha + B D^-beta",
        "Hoffmann et al. 2022, arXiv:2203.15556, approach 3",
        ("params", "tokens"),
        ("log_A", "log_B", "log_E", "alpha", "beta"),
        parametric,
        additive_constants,
        additive_starts,
    ),
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
    Law(
        "kaplan_joint",
        "L(N, D) = [(Nc/N)^(alpha_N/alpha_D) + Dc/D]^alpha_D",
        KAPLAN + ", eq. 1.5",
        ("params", "tokens"),
        ("log_Nc", "log_Dc", "alpha_N", "alpha_D"),
        kaplan_joint,
        lambda t: {
            "Nc": np.exp(t[:, 0]),
            "Dc": np.exp(t[:, 1]),
            "alpha_N": t[:, 2],
            "alpha_D": t[:, 3],
        },
        kaplan_joint_starts,
    ),
    Law(
        "kaplan_joint_with_floor",
        "L(N, D) = E + [(Nc/N)^(alpha_N/alpha_D) + Dc/D]^alpha_D",
        KAPLAN + ", eq. 1.5, with an irreducible loss",
        ("params", "tokens"),
        ("log_Nc", "log_Dc", "alpha_N", "alpha_D", "log_E"),
        with_floor(kaplan_joint),
        lambda t: {
            "Nc": np.exp(t[:, 0]),
            "Dc": np.exp(t[:, 1]),
            "alpha_N": t[:, 2],
            "alpha_D": t[:, 3],
            "E": np.exp(t[:, 4]),
        },
        joint_floor_starts,
    ),
    Law(
        "parametric_without_floor",
        "L(N, D) = A N^-alpha + B D^-beta",
        "Hoffmann et al. 2022, arXiv:2203.15556, approach 3, with E = 0",
        ("params", "tokens"),
        ("log_A", "log_B", "alpha", "beta"),
        without_floor(parametric),
        lambda t: {
            "A": np.exp(t[:, 0]),
            "B": np.exp(t[:, 1]),
            "alpha": t[:, 2],
            "beta": t[:, 3],
        },
        lambda x, log_loss: np.delete(additive_starts(x, log_loss), 2, axis=1),
    ),
    Law(
        "over_training_without_floor",
        "L(C, M) = (a_M M^eta + b_M M^-eta) C^-eta, M = D/N",
        "Gadre et al. 2024, arXiv:2403.08540, with E = 0",
        ("params", "tokens", "flops"),
        ("log_a", "log_b", "eta"),
        without_floor(over_training),
        lambda t: {"a_M": np.exp(t[:, 0]), "b_M": np.exp(t[:, 1]), "eta": t[:, 2]},
        lambda x, log_loss: np.delete(over_training_starts(x, log_loss), 2, axis=1),
    ),
    Law(
        "over_training",
        "L(C, M) = E + (a_M M^eta + b_M M^-eta) C^-eta, M = D/N",
        "Gadre et al. 2024, arXiv:2403.08540",
        ("params", "tokens", "flops"),
        ("log_a", "log_b", "log_E", "eta"),
        over_training,
        lambda t: {
            "a_M": np.exp(t[:, 0]),
            "b_M": np.exp(t[:, 1]),
            "E": np.exp(t[:, 2]),
            "eta": t[:, 3],
        },
        over_training_starts,
    ),
    Law(
        "data_constrained",
        "L(N, D, U) = E + A N^-alpha + B D'^-beta, D' = U (1 + R* (1 - exp(-R/R*)))",
        "Muennighoff et al. 2023, arXiv:2305.16264, eq. 5",
        ("params", "tokens", "unique_tokens"),
        ("log_A", "log_B", "log_E", "alpha", "beta", "log_R"),
        data_constrained,
        lambda t: additive_constants(t) | {"R": np.exp(t[:, 5])},
        data_constrained_starts,
    ),
)
LAWS: dict[str, Law] = {law.name: law for law in _ALL}
