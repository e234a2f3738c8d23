"""This file says everything about one table: fits, intervals, the held-out runs, warnings."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from scaling.fits.envelope import Envelope, decaying, envelope, mid_run_excess
from scaling.fits.isoflop import NO_FLOOR, IsoFlop, bias, curve, exponents, frontier, isoflop
from scaling.fits.parametric import (
    CLOUD,
    Parametric,
    Progress,
    describe_optimum,
    describe_parametric,
    fit_parametric,
    implied_frontier,
)
from scaling.fits.sensitivity import approaches, conventions, kaplan_count, other_fits
from scaling.fits.warnings import FAR, cautions, extrapolation
from scaling.intervals import finite, nothing, number
from scaling.settings import DEFAULTS, LEVEL, Settings
from scaling.table import Points, count, sha256, tuned
from scaling.validate import Unsupported

NAMES = ("A", "B", "E", "alpha", "beta", "a", "b", "gamma")
CURVE_POINTS = 200  # of the envelope, kept in law.json for the figure


def predict(
    points: Points, params: float, tokens: float, settings: Settings = DEFAULTS
) -> dict[str, float | None]:
    """The loss of a run of N parameters on D tokens, from the parametric law: value, lo, hi."""
    return fit_parametric(points, settings).predict(params, tokens, settings.seed)


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
                "parabola": curve_line(points, m),
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


def curve_line(points: Points, m: Any, samples: int = 41) -> list[list[float]]:
    """[N, loss] along a budget's parabola or spline, for the figure."""
    if m.reason:
        return []
    log_n = np.log(points.params[m.window])
    span = np.linspace(log_n.min(), log_n.max(), samples)
    values = curve(points, m, span)
    return [[float(np.exp(x)), float(np.exp(y))] for x, y in zip(span, values, strict=True)]


def describe_bias(
    points: Points, found: IsoFlop, parametric: Parametric | None, settings: Settings
) -> dict[str, Any] | None:
    """What the grid of sizes does to the minima, by the fitted law without noise; null without a
    law.
    """
    if parametric is None or "unique_tokens" in parametric.fitted.law.inputs or not found.accepted:
        return None
    told = bias(points, found, lambda p: parametric.fitted.loss(p.columns()), settings.window)
    shifts = [finite(np.expm1(shift)) for shift in told["shifts"]]
    return {"flops": list(found.array("flops")), "params": shifts, "a": finite(told["a"])}


def describe_envelope(points: Points, settings: Settings) -> tuple[dict[str, Any], Envelope | None]:
    """Approach 1: the exponents, the envelope, and how far its points are from final losses."""
    runs, schedules = decaying(points)
    excess = mid_run_excess(points)
    told = {
        "decaying_runs": runs,
        "schedules": list(schedules),
        "pairs": len(excess),
        "excess": finite(np.expm1(np.median(excess))) if len(excess) else None,
    }
    try:
        found = envelope(points, settings.draws, settings.seed)
    except Unsupported as error:
        return told | nothing(("a", "b"), str(error)), None
    every = slice(None, None, max(1, len(found.flops) // CURVE_POINTS))
    columns = (found.flops, found.params, found.tokens, found.loss)
    told |= {name: number(getattr(found, name), found.draws[name]) for name in ("a", "b")}
    line = [[float(v) for v in row] for row in zip(*(c[every] for c in columns), strict=True)]
    return told | {"line": line, "draws": len(found.draws["a"])}, found


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
    # A draw that bends no more than a straight line in log-log tells E no lower bound.
    lowest = np.exp(found.array("log_loss").min())
    drawn["E"] = np.where(drawn["E"] < NO_FLOOR * lowest, 0.0, drawn["E"])
    flops = np.geomspace(found.array("flops").min(), reach, 60)
    lines = fitted.law.loss(draws, {"flops": flops}) if len(draws) else None
    band = [
        [float(c), *number(v, None if lines is None else lines[:, i]).values()]
        for i, (c, v) in enumerate(zip(flops, fitted.loss({"flops": flops}), strict=True))
    ]
    constants = {name: number(v, drawn[name]) for name, v in fitted.constants().items()}
    return {**constants, "law": fitted.law.formula, "implied": implied, "band": band}


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
        unique = float(points.columns()["unique_tokens"][row])
        predicted = parametric.predict(n, d, flops=c, unique_tokens=unique)
        best = frontier_value(found, c) if len(rows) <= 10 else None
        reach = extrapolation(points.select(~points.holdout), c)
        entry = {"run": str(points.run[row]), "params": n, "tokens": d, "flops": c}
        entry |= {"extrapolation": reach, "extrapolated": reach > FAR}
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
    target = record["target"]
    rows = np.flatnonzero(points.run == target["run"]) if target.get("run") else np.array([], int)
    told = record | {"extrapolated": record.get("extrapolation", 0) > FAR}
    if not len(rows):
        return told | {"outcome": None}
    # Of several evaluations of the run, the one at the length that was predicted.
    off = np.abs(np.log(points.tokens[rows] / target["tokens"]))
    return told | outcome(points, int(rows[off.argmin()]), record["loss"])


def analyse(
    points: Points,
    settings: Settings = DEFAULTS,
    registered: list[dict[str, Any]] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The law.json of a table. Held-out points are predicted and never fitted."""
    source = points
    if settings.params != "total" or settings.flops != "6nd":
        points = count(points, settings.params, settings.flops)
    kept = tuned(points.select(~points.holdout))
    parametric = None
    try:
        parametric = fit_parametric(points, settings, progress)
        described = describe_parametric(parametric)
    except Unsupported as error:
        described = nothing(NAMES, str(error))
    found = isoflop(kept, settings.draws, settings.seed, settings.window, settings.interpolation)
    reach = float(points.flops.max()) * (1.0 if points.holdout.any() else 3.0)
    by_curves, curves = describe_envelope(kept, settings)
    law = {
        "parametric": described,
        "isoflop": describe_isoflop(kept, found)
        | {"grid_bias": describe_bias(kept, found, parametric, settings)},
        "envelope": by_curves,
        "frontier": describe_frontier(found, parametric, reach),
        "optimum": describe_optimum(parametric, float(kept.flops.max())),
        "holdout": describe_holdout(points, parametric, found, registered or []),
        **other_analyses(tuned(source.select(~source.holdout)), kept, parametric, curves, settings),
        "points": described_points(points, kept),
        "settings": asdict(settings) | {"level": LEVEL},
    }
    law["warnings"] = cautions(points, law)
    return law


def other_analyses(
    source: Points,
    kept: Points,
    parametric: Parametric | None,
    curves: Envelope | None,
    settings: Settings,
) -> dict[str, Any]:
    """The same runs analysed otherwise: by method, and by what is counted."""
    rows = approaches(kept, parametric, curves, settings)
    split = parametric is not None and parametric.splits_compute
    if split:
        rows += other_fits(kept, parametric, settings)
    counted = split and bool(source.components)
    return {
        "sensitivity": rows,
        "conventions": conventions(source, settings) if counted else [],
        "kaplan_count": kaplan_count(source, parametric) if counted else None,
    }


def described_points(points: Points, kept: Points) -> dict[str, Any]:
    """What was fitted: how many, their hash, their ranges, and what was left out."""
    ranges = {"params": kept.params, "tokens": kept.tokens, "flops": kept.flops}
    ranges["tokens_per_param"] = kept.tokens / kept.params
    return {
        "n": len(kept),
        "held_out": int(points.holdout.sum()),
        "untuned": int((~points.holdout).sum()) - len(kept),
        "runs": len(np.unique(kept.run)),
        "sha256": sha256(kept),
        "range": {name: [float(v.min()), float(v.max())] for name, v in ranges.items()},
        "source": points.source,
        "left_out": points.left_out,
        "datasets": dict(Counter(str(told["dataset"]) for told in kept.facts if "dataset" in told)),
    }
