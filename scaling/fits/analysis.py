"""Analyses a table into the content of law.json: fits, intervals, held-out runs, warnings."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np

from scaling.fits.envelope import Envelope, decaying, envelope, mid_run_excess
from scaling.fits.holdout import describe_holdout
from scaling.fits.isoflop import NO_FLOOR, IsoFlop, bias, curve, exponents, frontier, isoflop
from scaling.fits.parametric import (
    CLOUD,
    Parametric,
    Progress,
    describe_optimum,
    describe_parametric,
    fit_parametric,
    implied_frontier,
    split_known,
)
from scaling.fits.sensitivity import approaches, conventions, kaplan_count, other_fits
from scaling.fits.warnings import warnings
from scaling.intervals import finite, nothing, number
from scaling.settings import DEFAULTS, LEVEL, Settings
from scaling.table import Points, count, fitted_rows, sha256
from scaling.validate import Unsupported

CURVE_POINTS = 200  # points of the envelope that law.json keeps for the figure


def describe_isoflop(points: Points, isoflop_fit: IsoFlop) -> dict[str, Any]:
    """The iso-FLOP part of law.json: every budget, and the exponents if at least three minima are
    bracketed.
    """
    minima, accepted = [], 0
    for m in isoflop_fit.minima:
        drawn = {}
        if not m.reason:
            drawn = {
                name: np.exp(values[:, accepted]) for name, values in isoflop_fit.draws.items()
            }
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
        fitted = exponents(isoflop_fit)
    except Unsupported as error:
        return {**nothing(("a", "b"), str(error)), "minima": minima, "spread": isoflop_fit.spread}
    parts = {letter: number(slope, draws) for letter, (slope, _, draws, _) in fitted.items()}
    log_k = {f"log_k_{letter}": value[1] for letter, value in fitted.items()}
    cloud = {
        letter: [[float(s), float(i)] for s, i in zip(slopes[:CLOUD], levels[:CLOUD], strict=True)]
        for letter, (_, _, slopes, levels) in fitted.items()
    }
    return {**parts, **log_k, "minima": minima, "spread": isoflop_fit.spread, "cloud": cloud}


def curve_line(points: Points, m: Any, samples: int = 41) -> list[list[float]]:
    """Points [N, loss] on a budget's parabola or spline, for the figure."""
    if m.reason:
        return []
    log_n = np.log(points.params[m.window])
    span = np.linspace(log_n.min(), log_n.max(), samples)
    values = curve(points, m, span)
    return [[float(np.exp(x)), float(np.exp(y))] for x, y in zip(span, values, strict=True)]


def describe_bias(
    points: Points, isoflop_fit: IsoFlop, parametric: Parametric | None, settings: Settings
) -> dict[str, Any] | None:
    """The bias of the minima from the grid of sizes, by the fitted law without noise; null without
    a law.
    """
    if parametric is None or not isoflop_fit.accepted:
        return None
    law = parametric.law
    if law.response != "loss" or not set(law.inputs) <= {"params", "tokens", "flops"}:
        return None
    of_grid = bias(
        points, isoflop_fit, lambda p: parametric.fitted.loss(p.columns()), settings.window
    )
    shifts = [finite(np.expm1(shift)) for shift in of_grid["shifts"]]
    return {"flops": list(isoflop_fit.array("flops")), "params": shifts, "a": finite(of_grid["a"])}


def describe_envelope(points: Points, settings: Settings) -> tuple[dict[str, Any], Envelope | None]:
    """Approach 1: the exponents, the envelope, and how far mid-run losses exceed final losses."""
    runs, schedules = decaying(points)
    excess = mid_run_excess(points)
    about = {
        "decaying_runs": runs,
        "schedules": list(schedules),
        "pairs": len(excess),
        "excess": finite(np.expm1(np.median(excess))) if len(excess) else None,
    }
    try:
        result = envelope(points, settings.draws, settings.seed)
    except Unsupported as error:
        return about | nothing(("a", "b"), str(error)), None
    every = slice(None, None, max(1, len(result.flops) // CURVE_POINTS))
    columns = (result.flops, result.params, result.tokens, result.loss)
    about |= {name: number(getattr(result, name), result.draws[name]) for name in ("a", "b")}
    line = [[float(v) for v in row] for row in zip(*(c[every] for c in columns), strict=True)]
    return about | {"line": line, "draws": len(result.draws["a"])}, result


def describe_frontier(
    isoflop_fit: IsoFlop, parametric: Parametric | None, reach: float
) -> dict[str, Any]:
    """L(C) = E + K C^-γ through the minima, with a band up to `reach` FLOPs, and the frontier that
    the parametric law implies.
    """
    implied = implied_frontier(parametric)
    try:
        fitted, draws = frontier(isoflop_fit)
    except Unsupported as error:
        return {**nothing(("E", "K", "gamma"), str(error)), "implied": implied, "band": []}
    drawn = fitted.law.constants(draws)
    # In draws that are straight lines in log-log, E is indistinguishable from 0.
    lowest = np.exp(isoflop_fit.array("log_loss").min())
    drawn["E"] = np.where(drawn["E"] < NO_FLOOR * lowest, 0.0, drawn["E"])
    flops = np.geomspace(isoflop_fit.array("flops").min(), reach, 60)
    lines = fitted.law.loss(draws, {"flops": flops}) if len(draws) else None
    band = [
        [float(c), *number(v, None if lines is None else lines[:, i]).values()]
        for i, (c, v) in enumerate(zip(flops, fitted.loss({"flops": flops}), strict=True))
    ]
    constants = {name: number(v, drawn[name]) for name, v in fitted.constants().items()}
    return {**constants, "law": fitted.law.formula, "implied": implied, "band": band}


def analyse(
    points: Points,
    settings: Settings = DEFAULTS,
    registered: list[dict[str, Any]] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The content of law.json for a table. Held-out points are predicted and never fitted."""
    source, law = points, settings.fitted_law
    if settings.params != "total" or settings.flops != "6nd":
        points = count(points, settings.params, settings.flops)
    kept = fitted_rows(points, law)
    parametric = None
    try:
        parametric = fit_parametric(kept, settings, progress)
        described = describe_parametric(parametric)
    except Unsupported as error:
        described = nothing(law.printed, str(error))
    isoflop_fit = isoflop(
        kept, settings.draws, settings.seed, settings.window, settings.interpolation
    )
    reach = float(points.flops.max()) * (1.0 if points.holdout.any() else 3.0)
    by_curves, curves = describe_envelope(kept, settings)
    parts = {
        "parametric": described,
        "isoflop": describe_isoflop(kept, isoflop_fit)
        | {"grid_bias": describe_bias(kept, isoflop_fit, parametric, settings)},
        "envelope": by_curves,
        "frontier": describe_frontier(isoflop_fit, parametric, reach),
        "optimum": describe_optimum(parametric, float(kept.flops.max())),
        "holdout": describe_holdout(points, parametric, isoflop_fit, registered or []),
        **other_analyses(fitted_rows(source, law), kept, parametric, curves, settings),
        "baselines": [
            {name: finite_or_text(value) for name, value in asdict(baseline).items()}
            for baseline in points.baselines
        ],
        "points": described_points(points, kept, settings),
        "settings": asdict(settings) | {"level": LEVEL},
    }
    parts["warnings"] = warnings(points, parts)
    return parts


def finite_or_text(value: Any) -> str | float | None:
    """A value of a baseline for JSON."""
    return value if isinstance(value, str) else finite(value)


def other_analyses(
    source: Points,
    kept: Points,
    parametric: Parametric | None,
    curves: Envelope | None,
    settings: Settings,
) -> dict[str, Any]:
    """The same runs analysed with other methods and other counting conventions."""
    rows = approaches(kept, parametric, curves, settings)
    split = split_known(parametric)
    if split:
        rows += other_fits(kept, parametric, settings)
    counted = split and bool(source.components)
    return {
        "sensitivity": rows,
        "conventions": conventions(source, settings) if counted else [],
        "kaplan_count": kaplan_count(source, parametric) if counted else None,
    }


def described_points(points: Points, kept: Points, settings: Settings) -> dict[str, Any]:
    """The fitted points: number, hash and ranges, and the numbers of runs left out."""
    ranges = {"params": kept.params, "tokens": kept.tokens, "flops": kept.flops}
    ranges["tokens_per_param"] = kept.tokens / kept.params
    ranges |= {name: kept.other[name] for name in settings.fitted_law.inputs if name in kept.other}
    known = {name: v for name, v in ranges.items() if np.isfinite(v).all()}
    return {
        "n": len(kept),
        "held_out": int(points.holdout.sum()),
        "untuned": int((~points.holdout).sum()) - len(kept),
        "runs": len(np.unique(kept.run)),
        "sha256": sha256(kept),
        "range": {name: [float(v.min()), float(v.max())] for name, v in known.items()},
        "source": points.source,
        "left_out": points.left_out,
        "datasets": dict(Counter(str(row["dataset"]) for row in kept.facts if "dataset" in row)),
    }
