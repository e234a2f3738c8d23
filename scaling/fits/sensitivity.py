"""Analyses the same runs with other objectives, without outliers, with other methods, and with
other counts of N and C. A sound conclusion holds in all of these analyses.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from scaling.fits.envelope import Envelope
from scaling.fits.isoflop import INTERPOLATIONS, exponents, isoflop
from scaling.fits.parametric import (
    Parametric,
    fit_parametric,
    flops_growth,
    split_known,
    weights_of,
)
from scaling.fits.robust_fit import bootstrap, fit
from scaling.intervals import number
from scaling.laws.law import frontier_exponents
from scaling.laws.recount import ladder_exponent
from scaling.settings import Settings
from scaling.table import FLOP_CONVENTIONS, PARAM_CONVENTIONS, Points, count, fitted_rows
from scaling.validate import Unsupported

OTHER_FITS = (
    ("Huber, δ = 1e-4", "huber", 1e-4),
    ("Huber, δ = 1e-3", "huber", 1e-3),
    ("Huber, δ = 1e-2", "huber", 1e-2),
    ("Huber, δ = 1e-1", "huber", 1e-1),
    ("least absolute deviation", "absolute", 1e-3),
    ("least squares", "squares", 1e-3),
)
WORST = 0.02  # share of the runs dropped as outliers; at least one run
MOST_DRAWS = 1000  # bootstrap draws for each count of N
FEW_DRAWS, FEWEST_DRAWS = 200, 50  # draws for other fits: at most, and at least for an interval
DRAWN_POINTS = 400_000  # largest product of draws and points for other fits, to bound their time
CONSTANTS = ("E", "alpha", "beta", "a", "b")
ROLES = ("A", "B", "E", "alpha", "beta")  # of the constants that `Law.split` names
Row = dict[str, Any]


def row(group: str, label: str, n: int, values: dict[str, Any]) -> Row:
    """One row of the table; constants that a method does not give are null."""
    return {
        "group": group,
        "label": label,
        "n": n,
        **{name: values.get(name, number(None)) for name in CONSTANTS},
    }


def refitted(points: Points, parametric: Parametric, settings: Settings, start: np.ndarray) -> Row:
    """Constants of the same law under other settings, fitted from `start`, with intervals from few
    draws.
    """
    again = fit(
        parametric.law,
        points.columns(),
        points.response(parametric.law),
        settings.objective,
        settings.delta,
        weights_of(points, settings),
        start[None],
    )
    draws = min(settings.draws, FEW_DRAWS, DRAWN_POINTS // len(points))
    draws = draws if draws >= FEWEST_DRAWS else 0
    refits = bootstrap(again, points.run, draws, settings.seed, parametric.resampling)
    return constants(parametric, again.theta, refits)


def constants(parametric: Parametric, theta: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
    """E, alpha, beta, a and b of a law that has a split, at coordinates theta [F], with intervals
    from draws [S, F].
    """
    drawn = in_roles(parametric, draws, parametric.growth) if len(draws) else {}
    values = in_roles(parametric, theta[None], parametric.growth)
    fixed = {role for role, name in zip(ROLES, parametric.law.split, strict=True)
             if name in parametric.law.fixed}  # fmt: skip
    return {
        name: number(float(v[0]), None if name in fixed else drawn.get(name))
        for name, v in values.items()
    }


def in_roles(parametric: Parametric, theta: np.ndarray, growth: float) -> dict[str, np.ndarray]:
    """The constants [S] of a law that has a split, under the names ROLES, and the exponents a, b
    and gamma for C ∝ N^growth D.
    """
    table = parametric.law.constants(theta)
    roles = {role: table[name] for role, name in zip(ROLES, parametric.law.split, strict=True)}
    return roles | frontier_exponents(roles["alpha"], roles["beta"], growth)


def other_fits(points: Points, parametric: Parametric, settings: Settings) -> list[Row]:
    """Fits with other objectives, and without outliers."""
    rows, theta = [], parametric.fitted.theta
    for label, objective, delta in OTHER_FITS:
        other = replace(settings, objective=objective, delta=delta)
        if other == settings:
            values = constants(parametric, theta, parametric.draws)
        else:
            values = refitted(points, parametric, other, theta)
        rows.append(row("objective", label, len(points), values))
    fewer = max(1, round(WORST * len(points)))
    if len(points) - fewer > len(theta):
        for label, size in (
            (f"without the {fewer} farthest from the law", np.abs(parametric.fitted.residuals)),
            (f"without the {fewer} of highest loss", points.loss),
        ):
            kept = points.select(np.argsort(np.argsort(size, kind="stable")) < len(size) - fewer)
            rows.append(
                row("outliers", label, len(kept), refitted(kept, parametric, settings, theta))
            )
    return rows


def approaches(
    points: Points, parametric: Parametric | None, curves: Envelope | None, settings: Settings
) -> list[Row]:
    """The three approaches of Hoffmann et al. 2022, the second with each interpolation."""
    rows = []
    if curves is not None:
        values = {k: number(getattr(curves, k), curves.draws[k]) for k in ("a", "b")}
        rows.append(row("approach", "1: envelope of the curves", len(points), values))
    for interpolation in INTERPOLATIONS:
        by = isoflop(points, settings.draws, settings.seed, settings.window, interpolation)
        try:
            fits = exponents(by)
        except Unsupported:
            continue
        values = {letter: number(slope, drawn) for letter, (slope, _, drawn, _) in fits.items()}
        rows.append(row("approach", f"2: iso-FLOP, {interpolation}", len(points), values))
    if split_known(parametric):
        values = constants(parametric, parametric.fitted.theta, parametric.draws)
        rows.append(row("approach", "3: parametric law", len(points), values))
    return rows


def conventions(points: Points, settings: Settings) -> list[Row]:
    """The exponents of the same runs for every count of N and C that the table allows.

    Iso-FLOP exponents are null if the runs of a budget differ in compute under that count.
    """
    rows = []
    quick = replace(settings, draws=min(settings.draws, MOST_DRAWS))
    for params in PARAM_CONVENTIONS:
        try:
            parametric = fit_parametric(fitted_rows(count(points, params), quick.fitted_law), quick)
        except Unsupported:
            continue
        for flops in FLOP_CONVENTIONS:
            if flops != "6nd" and flops not in points.flops_by:
                continue
            recounted = count(points, params, flops)
            values = as_counted(parametric, flops_growth(recounted, flops))
            kept = fitted_rows(recounted, quick.fitted_law)
            by = isoflop(kept, quick.draws, quick.seed, quick.window, quick.interpolation)
            try:
                slope, _, drawn, _ = exponents(by)["a"]
                minima = number(slope, drawn)
            except Unsupported:
                minima = number(None)
            counted = {"params": params, "flops": flops, "n": len(points)}
            rows.append(counted | {"parametric": values, "isoflop": {"a": minima}})
    return rows


def as_counted(parametric: Parametric, growth: float) -> dict[str, Any]:
    """E, alpha, beta, a and b for C ∝ N^growth D."""
    value, drawn = (
        in_roles(parametric, theta, growth)
        for theta in (parametric.fitted.theta[None], parametric.draws)
    )
    return {k: number(float(value[k][0]), drawn[k]) for k in CONSTANTS} | {"growth": growth}


def kaplan_count(points: Points, parametric: Parametric | None) -> dict[str, Any] | None:
    """The law's exponent a if N and C excluded the embeddings, by Pearce & Song's conversion on the
    sizes of these runs.
    """
    if not split_known(parametric):
        return None
    total, bare = (count(points, name).params for name in ("total", "non_embedding"))
    constants = {
        k: float(v[0]) for k, v in in_roles(parametric, parametric.fitted.theta[None], 1.0).items()
    }
    expected = ladder_exponent(constants, bare, total)
    return None if expected is None else {"a": expected, "total": float(constants["a"])}
