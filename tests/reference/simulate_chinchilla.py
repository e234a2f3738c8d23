"""Simulates the runs of Hoffmann et al. 2022 and fits them with scipy, as a reference for tests.

    python tests/reference/simulate_chinchilla.py

The law is the fit of Besiroglu et al. 2024 to the published runs. N and D are drawn from the
design of Hoffmann et al.: nine budgets, 44M to 16B parameters. The first five runs are short and
far above the law, as in the published table. This script does not import isoflop.
"""

import csv
import json
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

LAW = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
BUDGETS = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21)
SMALLEST, LARGEST = 44e6, 16e9  # parameters
SPAN = 6.0  # sizes are within this factor of the optimal one
NOISE = 4.7e-3  # mean absolute residual of log loss: the published 1.018e-3 / (240 x 1e-3), + 5 %
OUTLIERS, RUNS, DRAWS, SEED = 5, 240, 4000, 42
HUBER, ABSOLUTE = (1e-3,), (1e-3, 1e-5, 1e-7, 1e-9)  # deltas, each started from the one before
COLUMNS = ("params", "tokens", "flops", "loss")
HERE = Path(__file__).parent


def law(theta: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """L(N, D) of theta = log A, log B, log E, alpha, beta."""
    a, b, e, alpha, beta = theta
    return np.exp(e) + np.exp(a) * params**-alpha + np.exp(b) * tokens**-beta


TRUE = np.array([*np.log([LAW["A"], LAW["B"], LAW["E"]]), LAW["alpha"], LAW["beta"]])


def simulate(seed: int = 4) -> np.ndarray:
    """The table [245, 4] of params, tokens, flops and loss in nats, outliers first."""
    random = np.random.default_rng(seed)
    flops = random.choice(BUDGETS, RUNS)
    a = LAW["beta"] / (LAW["alpha"] + LAW["beta"])
    scale = (LAW["alpha"] * LAW["A"] / (LAW["beta"] * LAW["B"])) ** (a / LAW["beta"])
    best = scale * (flops / 6) ** a
    params = np.clip(best * SPAN ** random.uniform(-1, 1, RUNS), SMALLEST, LARGEST)
    loss = law(TRUE, params, flops / 6 / params) * np.exp(random.laplace(0, NOISE, RUNS))
    few = np.sort(random.uniform(1.7e9, 6.8e9, OUTLIERS))[::-1]
    short = 1.6e18 / few
    high = law(TRUE, few, short) * np.exp(random.uniform(0.05, 0.3, OUTLIERS))
    params, tokens = np.append(few, params), np.append(short, flops / 6 / params)
    return np.stack([params, tokens, 6 * params * tokens, np.append(high, loss)], axis=1)


def fit(
    table: np.ndarray, deltas: tuple[float, ...], start: np.ndarray
) -> tuple[np.ndarray, float]:
    """The theta [5] that minimises the summed Huber loss at the last delta, and the minimum."""
    params, tokens, _, loss = table.T
    for delta in deltas:
        found = least_squares(
            lambda theta: np.log(law(theta, params, tokens) / loss),
            start, loss="huber", f_scale=delta, x_scale="jac",
            ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=2000,
        )  # fmt: skip
        start = found.x
    return found.x, float(found.cost)


def constants(theta: np.ndarray) -> dict[str, float]:
    """A, B, E, alpha, beta and the exponent a of the optimal size."""
    values = (*np.exp(theta[:3]), *theta[3:], theta[4] / (theta[3] + theta[4]))
    return dict(zip((*LAW, "a"), map(float, values), strict=True))


def expectations(table: np.ndarray) -> dict:
    """The results of a correct fit to the table, with the keys of tests/scaling/conftest.py."""
    runs = table[OUTLIERS:]
    theta, objective = fit(runs, HUBER, TRUE)
    draws = np.random.RandomState(SEED).randint(0, RUNS, (DRAWS, RUNS))
    drawn = [constants(fit(runs[rows], HUBER, theta)[0]) for rows in draws]
    drawn = {name: np.array([values[name] for values in drawn]) for name in drawn[0]}
    large = runs[:, 2] > 1.001e21
    beyond, _ = fit(runs[~large], HUBER, TRUE)
    errors = np.abs(law(beyond, *runs[large, :2].T) / runs[large, 3] - 1)
    return {
        "huber": constants(theta),
        "absolute": constants(fit(runs, ABSOLUTE, TRUE)[0]),
        "all rows": constants(fit(table, HUBER, TRUE)[0]),
        "objective": objective,
        "standard errors": {name: float(values.std(ddof=1)) for name, values in drawn.items()},
        "interval of a": np.percentile(drawn["a"], [2.5, 97.5]).tolist(),
        "errors beyond 1e21": [int(large.sum()), float(errors.mean()), float(errors.max())],
    }


if __name__ == "__main__":
    simulated = simulate()
    with (HERE / "chinchilla_simulated.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *simulated.tolist()])
    text = json.dumps({"law": LAW} | expectations(simulated), indent=2)
    (HERE / "chinchilla_simulated.json").write_text(text + "\n")
