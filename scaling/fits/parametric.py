"""This file fits a law to all runs of a table, with intervals, and says what follows from it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.fits.robust_fit import Fit, bootstrap, fit
from scaling.intervals import number, standard_error
from scaling.laws.laws import LAWS, Law, optimal_params
from scaling.settings import DEFAULTS, Settings
from scaling.table import Points, tuned
from scaling.validate import Unsupported, listed

CLOUD = 300  # bootstrap draws kept in law.json for the figures
# With fewer runs than this, drawing runs would often drop whole budgets of the design.
RUNS_TO_RESAMPLE = 60
MOST_EPOCHS = 4.0
# Published exponents lie below 1. A steeper term matters at the edge of the table alone.
STEEPEST, FLATTEST = 2.0, 1e-3
SAME_LOSS = 1e-6  # losses that differ by less show nothing
EXPONENTS = {
    "alpha": "size",
    "beta": "length",
    "gamma": "what it reads",
    "eta": "compute",
    "alpha_N": "size",
    "alpha_D": "length",
}
# The budgets at which the optimum is told, as multiples of the largest fitted run.
REACHES = (1.0, 10.0, 100.0)
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Parametric:
    """The fitted law with its bootstrap draws [S, P] (S = 0 where none were asked for)."""

    fitted: Fit
    draws: np.ndarray
    resampling: str
    growth: float = 1.0  # C / D ∝ N^growth under the chosen count of FLOPs; 1 for C = 6 N D

    @property
    def splits_compute(self) -> bool:
        """Whether the law is E, a term in N and one in D: its optimum at every C is known here."""
        return {"A", "B", "E"} <= self.fitted.constants().keys()

    def constants(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The law's constants [S], with exponents that follow from how C is counted."""
        table = self.fitted.law.constants(theta)
        if self.splits_compute:
            table |= frontier_exponents(table["alpha"], table["beta"], self.growth)
        return table

    def predict(
        self,
        params: float,
        tokens: float,
        seed: int = 0,
        flops: float | None = None,
        unique_tokens: float | None = None,
    ) -> dict[str, float | None]:
        """Loss of one run, with an interval for its *outcome*: the law's uncertainty and a run's
        noise.
        """
        row = {
            "params": params,
            "tokens": tokens,
            "flops": flops or 6 * params * tokens,
            "unique_tokens": unique_tokens or tokens,
        }
        columns = {name: np.array([value]) for name, value in row.items()}
        value = float(self.fitted.loss(columns)[0])
        if not len(self.draws):
            return number(value)
        log_loss = np.log(self.fitted.law.loss(self.draws, columns)[:, 0])
        residual_dof = max(len(self.fitted.residuals) - len(self.fitted.theta), 1)
        noise = np.random.default_rng(seed).standard_t(residual_dof, len(log_loss))
        return number(value, np.exp(log_loss + self.fitted.spread * noise))


def frontier_exponents(
    alpha: np.ndarray, beta: np.ndarray, growth: float = 1.0
) -> dict[str, np.ndarray]:
    """N* ∝ C^a, D* ∝ C^b, L* - E ∝ C^-gamma where a token costs N^growth: Hoffmann et al. 2022,
    eq. 4, for growth = 1.

    Minimising A N^-α + B D^-β along D = C / N^g gives α N^-α ∝ g β D^-β, hence a = β/(α + gβ).

    """
    total = alpha + growth * beta
    return {"a": beta / total, "b": alpha / total, "gamma": alpha * beta / total}


def flops_growth(points: Points, flops: str) -> float:
    """The slope of log(C / D) in log N under a count of FLOPs; exactly 1 for C = 6 N D."""
    if flops == "6nd" or np.ptp(points.params) == 0:
        return 1.0
    return float(np.polyfit(np.log(points.params), np.log(points.flops / points.tokens), 1)[0])


def weights_of(points: Points, settings: Settings) -> np.ndarray | None:
    """The weight of every point, 1 on average; ValueError where loss_se is asked for and lacks."""
    if settings.weights == "none":
        return None
    wrong = np.flatnonzero(~(np.isfinite(points.loss_se) & (points.loss_se > 0)))
    if len(wrong):
        raise ValueError(
            f"weights=loss_se takes a positive loss_se for every run; {points.source} has none for "
            f"{listed([str(name) for name in points.run], wrong)}; use weights=none"
        )
    weights = (points.loss / points.loss_se) ** 2
    return weights / weights.mean()


def fit_parametric(
    points: Points, settings: Settings = DEFAULTS, progress: Progress | None = None
) -> Parametric:
    """The chosen law of the points that are not held out. Unsupported: why there is none."""
    fitted_to = tuned(points.select(~points.holdout))
    law = LAWS[settings.law]
    refuse_repeats(fitted_to, law.name)
    fitted = fit(
        law,
        fitted_to.columns(),
        fitted_to.loss,
        settings.objective,
        settings.delta,
        weights_of(fitted_to, settings),
    )
    refuse_narrow(fitted_to, fitted.law)
    for name, value in fitted.constants().items():
        if name in EXPONENTS and not FLATTEST < value < STEEPEST:
            raise Unsupported(
                f"the best fit has {name} = {value:.3g}: these runs show no power law in "
                f"{EXPONENTS[name]}; vary it more widely on both sides of the optimum"
            )
    few = len(np.unique(fitted_to.run)) < RUNS_TO_RESAMPLE
    auto = "residuals" if few else "runs"
    how = auto if settings.resampling == "auto" else settings.resampling
    draws = bootstrap(fitted, fitted_to.run, settings.draws, settings.seed, how, progress)
    return Parametric(fitted, draws, how, flops_growth(fitted_to, settings.flops))


def refuse_narrow(points: Points, law: Law) -> None:
    """Unsupported where losses are all alike, or an input takes too few values to tell its
    exponent: every exponent would fit, and the answer would be the start of the search.
    """
    if np.ptp(np.log(points.loss)) < SAME_LOSS:
        raise Unsupported(
            f"all {len(points)} losses are {points.loss[0]:.4g}: they show no law; check the column"
        )
    needed = 3 if "log_E" in law.coordinates else 2
    columns = points.columns()
    for name in law.inputs:
        values = len(np.unique(np.round(np.log(columns[name]), 2)))
        if values < needed and name != "unique_tokens":
            raise Unsupported(
                f"{law.name} takes runs of at least {needed} different {name}, and these "
                f"{len(points)} runs have {values}; vary it"
            )


def refuse_repeats(points: Points, law: str) -> None:
    """Unsupported where tokens were repeated so often that only the data-constrained law holds, or
    so seldom that this very law cannot tell their worth.
    """
    epochs = points.columns()["tokens"] / points.columns()["unique_tokens"]
    often = epochs > MOST_EPOCHS
    if law == "data_constrained" and not (epochs > 1.01).any():
        raise Unsupported(
            "no run repeats its data, so R* cannot be told; use law=parametric, or add runs of "
            "several epochs (columns epochs_of_data or unique_tokens)"
        )
    if law != "data_constrained" and often.any():
        raise Unsupported(
            f"{int(often.sum())} runs saw their data more than {MOST_EPOCHS:g} times (up to "
            f"{epochs.max():.3g}): repeated tokens teach less (Muennighoff et al. 2023); use more "
            "text, or law=data_constrained"
        )


def describe_parametric(found: Parametric) -> dict[str, Any]:
    """The fitted law's part of law.json."""
    fitted, law = found.fitted, found.fitted.law
    drawn = found.constants(found.draws) if len(found.draws) else {}
    values = found.constants(fitted.theta[None])
    residuals = fitted.residuals
    return {
        **{name: number(float(v[0]), drawn.get(name)) for name, v in values.items()},
        "law": law.formula,
        "name": law.name,
        "coordinates": [float(v) for v in fitted.theta],
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
        "growth": found.growth,
        "resampling": found.resampling,
        "draws": len(found.draws),
        "standard_errors": {name: standard_error(v) for name, v in drawn.items()},
        "cloud": {name: [float(v) for v in values[:CLOUD]] for name, values in drawn.items()},
    }


def optimum(theta: np.ndarray, flops: float) -> dict[str, np.ndarray]:
    """N*, D*, their ratio and the loss at C = 6 N D, for coordinates [S, P] of an additive law."""
    table = LAWS["parametric"].constants(theta[:, :5])
    params = optimal_params(theta[:, :5], np.array(flops))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        tokens = flops / 6 / params
        reducible = table["A"] * params ** -table["alpha"] + table["B"] * tokens ** -table["beta"]
    return {
        "params": params,
        "tokens": tokens,
        "tokens_per_param": tokens / params,
        "loss": table["E"] + reducible,
    }


def describe_optimum(found: Parametric | None, largest: float) -> list[dict[str, Any]]:
    """The best split of compute at the largest fitted run and beyond, with intervals of the law."""
    if found is None or not found.splits_compute:
        return []
    rows = []
    for reach in REACHES:
        flops = largest * reach
        value = optimum(found.fitted.theta[None], flops)
        drawn = optimum(found.draws, flops) if len(found.draws) else {}
        told = {name: number(float(v[0]), drawn.get(name)) for name, v in value.items()}
        rows.append({"flops": flops, "extrapolation": reach, **told})
    return rows


def implied_frontier(found: Parametric | None) -> dict[str, Any] | None:
    """E, K and γ of the loss along N*(C) of an additive law, at C = 6 N D."""
    if found is None or not found.splits_compute:
        return None

    def constants(theta: np.ndarray) -> dict[str, np.ndarray]:
        table = found.fitted.law.constants(theta)
        best = optimal_params(theta[:, :5], np.array(6.0))
        with np.errstate(invalid="ignore", over="ignore"):
            excess = table["A"] * best ** -table["alpha"] + table["B"] * best ** table["beta"]
        # At C = 6, N D = 1; the excess falls from there as C^-γ.
        return {"E": table["E"], "K": excess * 6 ** table["gamma"], "gamma": table["gamma"]}

    drawn = constants(found.draws) if len(found.draws) else {}
    value = constants(found.fitted.theta[None])
    return {name: number(float(v[0]), drawn.get(name)) for name, v in value.items()}
