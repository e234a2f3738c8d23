"""This file says everything about one table: fits, intervals, the held-out runs, warnings."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from scaling.cautions import cautions
from scaling.fit import HUBER_DELTA, OBJECTIVES, RESAMPLINGS, SEED, Fit, bootstrap, fit
from scaling.isoflop import IsoFlop, curve, exponents, frontier, isoflop
from scaling.laws import optimal_params
from scaling.refuse import Unsupported
from scaling.table import (
    FLOP_CONVENTIONS,
    PARAM_CONVENTIONS,
    Points,
    count,
    sha256,
)

LEVEL = 0.9
CLOUD = 300  # bootstrap draws kept in law.json for the figures
# With fewer runs than this, drawing runs would often drop whole budgets of the design.
RUNS_TO_RESAMPLE = 60
MOST_EPOCHS = 4.0
# Published exponents lie below 1. A steeper term matters at the edge of the table alone.
STEEPEST = 2.0
CHOICES = {
    "objective": (*OBJECTIVES, "absolute"),
    "resampling": ("auto", *RESAMPLINGS),
    "params": tuple(PARAM_CONVENTIONS),
    "flops": FLOP_CONVENTIONS,
}
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How a table is analysed."""

    objective: str = "huber"  # huber | squares | absolute
    delta: float = HUBER_DELTA
    draws: int = 1000  # of the bootstrap; 0: no intervals
    seed: int = SEED
    resampling: str = "auto"  # runs | residuals | auto: by the number of runs
    params: str = "total"  # how N is counted
    flops: str = "6nd"  # how C is counted
    window: int = 5  # points of a budget that its parabola goes through

    def __post_init__(self) -> None:
        """ValueError names the setting, its value and what would be valid."""
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                value, choices = getattr(self, name), ", ".join(known)
                raise ValueError(f"{name}={value!r} is unknown; use one of {choices}")
        for name, least in (("draws", 0), ("seed", 0), ("window", 3), ("delta", 1e-12)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} is too small; use at least {least}")


DEFAULTS = Settings()


@dataclass(frozen=True)
class Parametric:
    """The fitted law with its bootstrap draws [S, 5] (S = 0 where none were asked for)."""

    fitted: Fit
    draws: np.ndarray
    resampling: str

    def predict(self, params: float, tokens: float, seed: int = 0) -> dict[str, float | None]:
        """Loss of one run, with an interval for its *outcome*: the law's uncertainty and a run's
        noise.
        """
        columns = {"params": np.array([params]), "tokens": np.array([tokens])}
        value = float(self.fitted.loss(columns)[0])
        if not len(self.draws):
            return number(value)
        log_loss = np.log(self.fitted.law.loss(self.draws, columns)[:, 0])
        residual_dof = max(len(self.fitted.residuals) - len(self.fitted.theta), 1)
        noise = np.random.default_rng(seed).standard_t(residual_dof, len(log_loss))
        return number(value, np.exp(log_loss + self.fitted.spread * noise))


def number(value: float | None, draws: np.ndarray | None = None) -> dict[str, float | None]:
    """A value with its percentile interval, as law.json writes it; what is not finite becomes
    null.
    """
    low = high = None
    if draws is not None and len(draws):
        low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return {"value": finite(value), "lo": finite(low), "hi": finite(high)}


def finite(value: Any) -> float | None:
    """A float for JSON, null where there is none."""
    return float(value) if value is not None and np.isfinite(value) else None


def standard_error(draws: np.ndarray) -> float | None:
    """Standard deviation of bootstrap draws; null where a draw of a hopeless fit is infinite."""
    return finite(np.std(draws, ddof=1)) if np.isfinite(draws).all() else None


def nothing(names: tuple[str, ...], reason: str) -> dict[str, Any]:
    """A part that the data cannot support: nulls, and why."""
    return {**{name: number(None) for name in names}, "reason": reason}


def fit_parametric(
    points: Points, settings: Settings = DEFAULTS, progress: Progress | None = None
) -> Parametric:
    """Hoffmann's law of the points that are not held out. Unsupported: why there is none."""
    fitted_to = points.select(~points.holdout)
    epochs = fitted_to.fact("epochs_of_data")
    if (epochs > MOST_EPOCHS).any():
        raise Unsupported(
            f"{int((epochs > MOST_EPOCHS).sum())} runs saw their data more than {MOST_EPOCHS:g} "
            "times (up to "
            f"{np.nanmax(epochs):.3g}): repeated tokens teach less (Muennighoff et al. 2023); "
            "use more text"
        )
    fitted = fit(
        "parametric", fitted_to.columns(), fitted_to.loss, settings.objective, settings.delta
    )
    constants = fitted.constants()
    for name, what in (("alpha", "size"), ("beta", "length")):
        if not 0 < constants[name] < STEEPEST:
            raise Unsupported(
                f"the best fit has {name} = {constants[name]:.3g}: these runs show no power law in "
                f"{what}; vary it more widely on both sides of the optimum"
            )
    few = len(np.unique(fitted_to.run)) < RUNS_TO_RESAMPLE
    auto = "residuals" if few else "runs"
    how = auto if settings.resampling == "auto" else settings.resampling
    draws = bootstrap(fitted, fitted_to.run, settings.draws, settings.seed, how, progress)
    return Parametric(fitted, draws, how)


def predict(
    points: Points, params: float, tokens: float, settings: Settings = DEFAULTS
) -> dict[str, float | None]:
    """The loss of a run of N parameters on D tokens, from the parametric law: value, lo, hi."""
    return fit_parametric(points, settings).predict(params, tokens, settings.seed)


def describe_parametric(found: Parametric) -> dict[str, Any]:
    """The parametric law's part of law.json."""
    fitted, law = found.fitted, found.fitted.law
    drawn = law.constants(found.draws) if len(found.draws) else {}
    constants = {name: number(v, drawn.get(name)) for name, v in fitted.constants().items()}
    residuals = fitted.residuals
    return {
        **constants,
        "law": law.formula,
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
        "resampling": found.resampling,
        "draws": len(found.draws),
        "standard_errors": {name: standard_error(values) for name, values in drawn.items()},
        "cloud": {name: [float(v) for v in values[:CLOUD]] for name, values in drawn.items()},
    }


def describe_isoflop(points: Points, found: IsoFlop) -> dict[str, Any]:
    """The iso-FLOP part of law.json: every budget, and the exponents where at least three are
    bracketed.
    """
    minima, accepted = [], 0
    for m in found.minima:
        drawn = {}
        if not m.reason:
            drawn = {name: np.exp(values[:, accepted]) for name, values in found.draws.items()}
            accepted += 1
        minima.append(
            {
                "flops": m.flops,
                "params": number(np.exp(m.log_params), drawn.get("log_params")),
                "tokens": number(np.exp(m.log_tokens), drawn.get("log_tokens")),
                "loss": number(np.exp(m.log_loss), drawn.get("log_loss")),
                "sizes": len(np.unique(points.params[m.rows])),
                "runs": [str(points.run[row]) for row in m.rows],
                "bracket": list(m.bracket),
                "parabola": parabola_line(points, m),
                **({"reason": m.reason} if m.reason else {}),
            }
        )
    try:
        grown = exponents(found)
    except Unsupported as error:
        return {**nothing(("a", "b"), str(error)), "minima": minima, "spread": found.spread}
    parts = {letter: number(slope, draws) for letter, (slope, _, draws, _) in grown.items()}
    log_k = {f"log_k_{letter}": value[1] for letter, value in grown.items()}
    cloud = {
        letter: [[float(s), float(i)] for s, i in zip(slopes[:CLOUD], levels[:CLOUD], strict=True)]
        for letter, (_, _, slopes, levels) in grown.items()
    }
    return {**parts, **log_k, "minima": minima, "spread": found.spread, "cloud": cloud}


def parabola_line(points: Points, m: Any, samples: int = 41) -> list[list[float]]:
    """[N, loss] along a budget's parabola, for the figure."""
    if not np.isfinite(m.coefficients).all():
        return []
    log_n = np.log(points.params[m.window])
    span = np.linspace(log_n.min(), log_n.max(), samples)
    return [[float(np.exp(x)), float(np.exp(y))] for x, y in zip(span, curve(m, span), strict=True)]


def describe_frontier(
    found: IsoFlop, parametric: Parametric | None, reach: float
) -> dict[str, Any]:
    """L(C) = E + K C^-γ through the minima, with a band up to `reach` FLOPs; and what the
    parametric law implies.
    """
    implied = implied_frontier(parametric)
    try:
        fitted, draws = frontier(found)
    except Unsupported as error:
        return {**nothing(("E", "K", "gamma"), str(error)), "implied": implied, "band": []}
    drawn = fitted.law.constants(draws)
    flops = np.geomspace(found.array("flops").min(), reach, 60)
    lines = fitted.law.loss(draws, {"flops": flops}) if len(draws) else None
    band = [
        [float(c), *number(v, None if lines is None else lines[:, i]).values()]
        for i, (c, v) in enumerate(zip(flops, fitted.loss({"flops": flops}), strict=True))
    ]
    constants = {name: number(v, drawn[name]) for name, v in fitted.constants().items()}
    return {**constants, "law": fitted.law.formula, "implied": implied, "band": band}


def implied_frontier(parametric: Parametric | None) -> dict[str, Any] | None:
    """E, K and γ of the loss along N*(C) of the parametric law."""
    if parametric is None:
        return None

    def constants(theta: np.ndarray) -> dict[str, np.ndarray]:
        table = parametric.fitted.law.constants(theta)
        best = optimal_params(theta, np.array(6.0))
        with np.errstate(invalid="ignore", over="ignore"):
            excess = table["A"] * best ** -table["alpha"] + table["B"] * best ** table["beta"]
        # At C = 6, N D = 1; the excess falls from there as C^-γ.
        return {"E": table["E"], "K": excess * 6 ** table["gamma"], "gamma": table["gamma"]}

    drawn = constants(parametric.draws) if len(parametric.draws) else {}
    value = constants(parametric.fitted.theta[None])
    return {name: number(float(v[0]), drawn.get(name)) for name, v in value.items()}


def frontier_value(found: IsoFlop, flops: float) -> dict[str, Any]:
    """The frontier's loss at a compute budget: the best that the minima promise there."""
    try:
        fitted, draws = frontier(found)
    except Unsupported as error:
        return {**number(None), "reason": str(error)}
    column = {"flops": np.array([flops])}
    drawn = fitted.law.loss(draws, column)[:, 0] if len(draws) else None
    return number(float(fitted.loss(column)[0]), drawn)


def describe_holdout(
    points: Points, parametric: Parametric | None, found: IsoFlop, registered: list[dict[str, Any]]
) -> dict[str, Any]:
    """Every held-out run: predicted from the others, its outcome, and the error (outcome /
    prediction - 1).
    """
    rows = np.flatnonzero(points.holdout)
    runs = []
    for row in rows if parametric is not None else ():
        n, d, c = (float(v[row]) for v in (points.params, points.tokens, points.flops))
        predicted = parametric.predict(n, d)
        best = frontier_value(found, c) if len(rows) <= 10 else None
        entry = {"run": str(points.run[row]), "params": n, "tokens": d, "flops": c}
        runs.append(
            entry | {"predicted": predicted, "frontier": best} | outcome(points, row, predicted)
        )
    errors = [abs(entry["error"]) for entry in runs]
    summary = {
        "n": len(rows),
        "mean_error": float(np.mean(errors)) if errors else None,
        "max_error": float(np.max(errors)) if errors else None,
        "inside": int(sum(bool(entry["inside"]) for entry in runs)) if runs else None,
        "runs": runs,
        "registered": [judged(points, record) for record in registered],
    }
    if len(rows) and parametric is None:
        summary["reason"] = "the parametric law could not be fitted"
    return summary


def outcome(points: Points, row: int, predicted: dict[str, Any]) -> dict[str, Any]:
    """How a prediction came out."""
    loss = float(points.loss[row])
    known = predicted["lo"] is not None
    return {
        "outcome": loss,
        "error": loss / predicted["value"] - 1,
        "inside": bool(predicted["lo"] <= loss <= predicted["hi"]) if known else None,
    }


def judged(points: Points, record: dict[str, Any]) -> dict[str, Any]:
    """A prediction that was written before its run, with the outcome where there is one by now."""
    target = record["target"].get("run")
    rows = np.flatnonzero(points.run == target) if target else np.array([], int)
    return record | (
        outcome(points, int(rows[0]), record["loss"]) if len(rows) else {"outcome": None}
    )


def describe_conventions(points: Points, settings: Settings) -> list[dict[str, Any]]:
    """The exponent a of N* ∝ C^a on the same runs, under every way of counting that the table
    allows.
    """
    bare = replace(settings, draws=0)
    rows = []
    for params in PARAM_CONVENTIONS:
        for flops in FLOP_CONVENTIONS:
            if flops != "6nd" and flops not in points.counted:
                continue
            try:
                found = fit_parametric(count(points, params, flops), bare)
            except Unsupported:
                continue
            constants = found.fitted.constants()
            kept = {name: constants[name] for name in ("E", "alpha", "beta", "a", "b")}
            rows.append({"params": params, "flops": flops, "parametric": kept})
    return rows


def analyse(
    points: Points,
    settings: Settings = DEFAULTS,
    registered: list[dict[str, Any]] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The law.json of a table. Held-out points (`points.holdout`) are predicted and never "
    "fitted."""
    if settings.params != "total" or settings.flops != "6nd":
        points = count(points, settings.params, settings.flops)
    kept = points.select(~points.holdout)
    parametric = None
    try:
        parametric = fit_parametric(points, settings, progress)
        described = describe_parametric(parametric)
    except Unsupported as error:
        names = ("A", "B", "E", "alpha", "beta", "a", "b", "gamma")
        described = nothing(names, str(error))
    found = isoflop(kept, settings.draws, settings.seed, settings.window)
    reach = float(points.flops.max()) * (1.0 if points.holdout.any() else 3.0)
    law = {
        "parametric": described,
        "isoflop": describe_isoflop(kept, found),
        "frontier": describe_frontier(found, parametric, reach),
        "holdout": describe_holdout(points, parametric, found, registered or []),
        "conventions": describe_conventions(points, settings) if points.components else [],
        "points": {
            "n": len(kept),
            "held_out": int(points.holdout.sum()),
            "runs": len(np.unique(kept.run)),
            "sha256": sha256(kept),
            "source": points.source,
            "left_out": points.left_out,
        },
        "settings": asdict(settings) | {"level": LEVEL},
    }
    law["warnings"] = cautions(points, law)
    return law
