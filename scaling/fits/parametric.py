"""Fits a law to all runs of a table, with intervals, and derives the optimal split from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fits.robust_fit import Fit, bootstrap, fit
from scaling.intervals import number, standard_error
from scaling.laws.law import Law, frontier_exponents
from scaling.laws.optimal_split import frontier_constants, optimum
from scaling.settings import DEFAULTS, Settings
from scaling.table import Points
from scaling.validate import Unsupported, listed

CLOUD = 300  # bootstrap draws that law.json keeps for the figures
# With fewer runs than this, resampling runs would often drop whole budgets of the design.
RUNS_TO_RESAMPLE = 60
MOST_EPOCHS = 4.0
SAME_LOSS = 1e-6  # log-losses within this range are equal
# Columns in words, for messages about their exponents.
IN_WORDS = {"params": "size", "tokens": "length", "flops": "compute"}
# Budgets in the table of optima, as multiples of the largest fitted run's.
REACHES = (1.0, 10.0, 100.0)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parametric:
    """The fitted law with its bootstrap draws [S, F]; S = 0 if none were requested."""

    fitted: Fit
    draws: np.ndarray
    resampling: str
    growth: float = 1.0  # C / D ∝ N^growth under the chosen count of FLOPs; 1 for C = 6 N D

    @property
    def law(self) -> Law:
        return self.fitted.law

    def constants(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The law's constants [S], with a, b and gamma for the chosen count of C."""
        table = self.law.constants(theta)
        if self.law.split:
            alpha, beta = (table[name] for name in self.law.split[3:])
            table |= frontier_exponents(alpha, beta, self.growth)
        return table

    def predict(self, inputs: Mapping[str, float], seed: int = 0) -> dict[str, float | None]:
        """The response of one run. The interval is for the outcome: it includes the law's
        uncertainty and a run's noise. `flops` and `unique_tokens` default to 6 N D and D. Raises
        ValueError if an input of the law is missing.
        """
        run = dict(inputs)
        if {"params", "tokens"} <= run.keys():
            run = {
                "flops": 6 * run["params"] * run["tokens"],
                "unique_tokens": run["tokens"],
            } | run
        columns = {name: np.array([value]) for name, value in run.items()}
        value = float(self.fitted.loss(columns)[0])
        if not len(self.draws):
            return number(value)
        drawn = self.law.scaled(self.law.loss(self.draws, columns)[:, 0])
        residual_dof = max(len(self.fitted.residuals) - len(self.fitted.theta), 1)
        noise = np.random.default_rng(seed).standard_t(residual_dof, len(drawn))
        return number(value, self.law.unscaled(drawn + self.fitted.spread * noise))


def split_known(parametric: Parametric | None) -> bool:
    """Whether there is a fitted law with a compute-optimal split."""
    return parametric is not None and parametric.law.split is not None


def flops_growth(points: Points, flops: str) -> float:
    """The slope of log(C / D) in log N for a count of FLOPs; exactly 1 for C = 6 N D."""
    if flops == "6nd" or np.ptp(points.params) == 0:
        return 1.0
    return float(np.polyfit(np.log(points.params), np.log(points.flops / points.tokens), 1)[0])


def weights_of(points: Points, settings: Settings) -> np.ndarray | None:
    """The weight of every point, 1 on average; None for equal weights. Raises ValueError if the
    standard errors for weights=loss_se are missing.
    """
    if settings.weights == "none":
        return None
    law = settings.fitted_law
    errors = points.response_se(law)
    wrong = np.flatnonzero(~(np.isfinite(errors) & (errors > 0)))
    if len(wrong):
        raise ValueError(
            f"weights=loss_se needs a positive {law.response}_se for every run; {points.source} "
            f"has none for {listed([str(name) for name in points.run], wrong)}; use weights=none"
        )
    weights = ((1 if law.linear else points.response(law)) / errors) ** 2
    return weights / weights.mean()


def fit_parametric(
    points: Points, settings: Settings = DEFAULTS, progress: Progress | None = None
) -> Parametric:
    """Fits the chosen law to all points, none of which may be held out (see `table.fitted_rows`).
    Raises Unsupported if the points do not support the law.
    """
    if points.holdout.any():
        raise ValueError("held-out points are never fitted; select table.fitted_rows first")
    law = settings.fitted_law
    check_repeats(points, law)
    fitted = fit(
        law,
        points.columns(),
        points.response(law),
        settings.objective,
        settings.delta,
        weights_of(points, settings),
    )
    check_variation(points, law)
    check_bounds(fitted)
    few = len(np.unique(points.run)) < RUNS_TO_RESAMPLE
    auto = "residuals" if few else "runs"
    how = auto if settings.resampling == "auto" else settings.resampling
    draws = bootstrap(fitted, points.run, settings.draws, settings.seed, how, progress)
    return Parametric(fitted, draws, how, flops_growth(points, settings.flops))


def check_bounds(fitted: Fit) -> None:
    """Raises Unsupported if a fitted constant is outside the law's bounds."""
    law = fitted.law
    for name, value in fitted.constants().items():
        if name not in law.bounds or name in law.fixed:
            continue
        low, high = law.bounds[name]
        if low < value < high:
            continue
        if name in law.exponents:
            column = law.exponents[name]
            raise Unsupported(
                f"the best fit has {name} = {value:.3g}: these runs show no power law in "
                f"{IN_WORDS.get(column, column)}; vary it more widely on both sides of the optimum"
            )
        raise Unsupported(
            f"the best fit has {name} = {value:.3g}, but law={law.name} allows {low:g} to "
            f"{high:g}: these runs do not follow it"
        )


def check_variation(points: Points, law: Law) -> None:
    """Raises Unsupported if all losses are equal, or if an input has too few different values to
    determine its exponent. The fit would then return the start of the search.
    """
    values = points.response(law)
    if np.ptp(law.scaled(values)) < SAME_LOSS:
        plural = "losses" if law.response == "loss" else f"values of {law.response}"
        raise Unsupported(f"all {len(points)} {plural} are {values[0]:.4g}; check the column")
    needed = 3 if law.floor and law.floor not in law.fixed else 2
    columns = points.columns()
    for name in law.inputs:
        exponents = [key for key, column in law.exponents.items() if column == name]
        if name in law.constant_inputs or (exponents and set(exponents) <= law.fixed.keys()):
            continue
        different = len(np.unique(np.round(np.log(columns[name]), 2)))
        if different < needed:
            raise Unsupported(
                f"{law.name} needs runs with at least {needed} different {name}, but these "
                f"{len(points)} runs have {different}; vary it"
            )


def check_repeats(points: Points, law: Law) -> None:
    """Raises Unsupported if tokens are repeated too often for a law without the input
    unique_tokens, or too rarely to determine R* of a law with it.
    """
    columns = points.columns()
    epochs = columns["tokens"] / columns["unique_tokens"]
    often = epochs > MOST_EPOCHS
    reads_repeats = "unique_tokens" in law.inputs
    if reads_repeats and not (epochs > 1.01).any():
        raise Unsupported(
            "no run repeats its data, so R* is undetermined; use law=parametric, or add runs of "
            "several epochs (columns epochs_of_data or unique_tokens)"
        )
    if not reads_repeats and often.any():
        raise Unsupported(
            f"{int(often.sum())} runs repeat their data more than {MOST_EPOCHS:g} times (up to "
            f"{np.nanmax(epochs):.3g}): repeated tokens teach less (Muennighoff et al. 2023); use "
            "more text, or law=data_constrained"
        )


def describe_parametric(parametric: Parametric) -> dict[str, Any]:
    """The fitted law's part of law.json. Raises ValueError if a constant has the name of another
    entry.
    """
    fitted, law = parametric.fitted, parametric.law
    drawn = parametric.constants(parametric.draws) if len(parametric.draws) else {}
    values = parametric.constants(fitted.theta[None])
    residuals = fitted.residuals
    free = {name: v for name, v in drawn.items() if name not in law.fixed}
    about = {
        "constants": list(values),
        "fixed": dict(law.fixed),
        "response": law.response,
        "linear": law.linear,
        "inputs": list(law.inputs),
        "floor": law.floor,
        "split": list(law.split) if law.split else None,
        "law": law.formula,
        "name": law.name,
        "coordinates": [float(v) for v in law.complete(fitted.theta)],
        "paper": law.paper,
        "loss": fitted.problem.objective,
        "delta": fitted.problem.delta,
        "objective": fitted.objective,
        "starts": fitted.starts,
        "reached": fitted.reached,
        "gradient_norm": fitted.gradient_norm,
        "condition": fitted.condition,
        "rmse": float(np.sqrt(np.mean(residuals**2))),
        "bias": float(np.mean(residuals)),
        "spread": fitted.spread,
        "n": len(residuals),
        "growth": parametric.growth,
        "resampling": parametric.resampling,
        "draws": len(parametric.draws),
        "standard_errors": {name: standard_error(v) for name, v in free.items()},
        "cloud": {name: [float(v) for v in values[:CLOUD]] for name, values in drawn.items()},
    }
    taken = about.keys() & values.keys()
    if taken:
        raise ValueError(
            f"law={law.name}: law.json already has an entry {', '.join(sorted(taken))}; rename the "
            "constant"
        )
    return {name: number(float(v[0]), free.get(name)) for name, v in values.items()} | about


def describe_optimum(parametric: Parametric | None, largest: float) -> list[dict[str, Any]]:
    """The optimal split of compute at REACHES times the largest fitted run, with intervals."""
    if not split_known(parametric):
        return []
    rows = []
    for reach in REACHES:
        flops = largest * reach
        value = optimum(parametric.law.split_coordinates(parametric.fitted.theta[None]), flops)
        drawn = {}
        if len(parametric.draws):
            drawn = optimum(parametric.law.split_coordinates(parametric.draws), flops)
        values = {name: number(float(v[0]), drawn.get(name)) for name, v in value.items()}
        rows.append({"flops": flops, "extrapolation": reach, **values})
    return rows


def implied_frontier(parametric: Parametric | None) -> dict[str, Any] | None:
    """E, K and γ of the loss along N*(C), at C = 6 N D; None if the law has no split."""
    if not split_known(parametric):
        return None
    drawn = {}
    if len(parametric.draws):
        drawn = frontier_constants(parametric.law.split_coordinates(parametric.draws))
    value = frontier_constants(parametric.law.split_coordinates(parametric.fitted.theta[None]))
    return {name: number(float(v[0]), drawn.get(name)) for name, v in value.items()}
