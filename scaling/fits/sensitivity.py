"""The same runs under other analyses: other robust losses, without the worst runs, by other
methods, counted by other conventions. A sound conclusion holds under all of them.
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
WORST = 0.02  # share of the runs left out as outliers; at least one
MOST_DRAWS = 1000  # of a count of N
FEW_DRAWS, FEWEST_DRAWS = 200, 50  # of every other fit; below the fewest there is no interval
DRAWN_POINTS = 400_000  # draws times points of every other fit, so that long tables take no hours
CONSTANTS = ("E", "alpha", "beta", "a", "b")
ROLES = ("A", "B", "E", "alpha", "beta")  # of the constants that `Law.split` names
Row = dict[str, Any]


def row(group: str, label: str, n: int, values: dict[str, Any]) -> Row:
    """One line of the table; what a method does not give is null."""
    return {
        "group": group,
        "label": label,
        "n": n,
        **{name: values.get(name, number(None)) for name in CONSTANTS},
    }


def refitted(points: Points, found: Parametric, settings: Settings, start: np.ndarray) -> Row:
    """Constants of the same law under other settings, started at the known fit, with intervals
    from few draws.
    """
    again = fit(
        found.law,
        points.columns(),
        points.response(found.law),
        settings.objective,
        settings.delta,
        weights_of(points, settings),
        start[None],
    )
    draws = min(settings.draws, FEW_DRAWS, DRAWN_POINTS // len(points))
    draws = draws if draws >= FEWEST_DRAWS else 0
    refits = bootstrap(again, points.run, draws, settings.seed, found.resampling)
    return constants(found, again.theta, refits)


def constants(found: Parametric, theta: np.ndarray, draws: np.ndarray) -> dict[str, Any]:
    """E, alpha, beta, a and b of a law that has a split, at coordinates theta [F], with intervals
    from draws [S, F].
    """
    drawn = in_roles(found, draws, found.growth) if len(draws) else {}
    values = in_roles(found, theta[None], found.growth)
    fixed = {role for role, name in zip(ROLES, found.law.split, strict=True)
             if name in found.law.fixed}  # fmt: skip
    return {
        name: number(float(v[0]), None if name in fixed else drawn.get(name))
        for name, v in values.items()
    }


def in_roles(found: Parametric, theta: np.ndarray, growth: float) -> dict[str, np.ndarray]:
    """The constants [S] of a law that has a split, by what they stand for, where a token costs
    N^growth.
    """
    table = found.law.constants(theta)
    roles = {role: table[name] for role, name in zip(ROLES, found.law.split, strict=True)}
    return roles | frontier_exponents(roles["alpha"], roles["beta"], growth)


def other_fits(points: Points, found: Parametric, settings: Settings) -> list[Row]:
    """Other objectives, and fewer runs."""
    rows, theta = [], found.fitted.theta
    for label, objective, delta in OTHER_FITS:
        other = replace(settings, objective=objective, delta=delta)
        if other == settings:
            values = constants(found, theta, found.draws)
        else:
            values = refitted(points, found, other, theta)
        rows.append(row("objective", label, len(points), values))
    fewer = max(1, round(WORST * len(points)))
    if len(points) - fewer > len(theta):
        for label, size in (
            (f"without the {fewer} farthest from the law", np.abs(found.fitted.residuals)),
            (f"without the {fewer} of highest loss", points.loss),
        ):
            kept = points.select(np.argsort(np.argsort(size, kind="stable")) < len(size) - fewer)
            rows.append(row("outliers", label, len(kept), refitted(kept, found, settings, theta)))
    return rows


def approaches(
    points: Points, found: Parametric | None, curves: Envelope | None, settings: Settings
) -> list[Row]:
    """The three approaches of Hoffmann et al. 2022, the second by each interpolation."""
    rows = []
    if curves is not None:
        values = {k: number(getattr(curves, k), curves.draws[k]) for k in ("a", "b")}
        rows.append(row("approach", "1: envelope of the curves", len(points), values))
    for interpolation in INTERPOLATIONS:
        by = isoflop(points, settings.draws, settings.seed, settings.window, interpolation)
        try:
            grown = exponents(by)
        except Unsupported:
            continue
        values = {letter: number(slope, drawn) for letter, (slope, _, drawn, _) in grown.items()}
        rows.append(row("approach", f"2: iso-FLOP, {interpolation}", len(points), values))
    if split_known(found):
        values = constants(found, found.fitted.theta, found.draws)
        rows.append(row("approach", "3: parametric law", len(points), values))
    return rows


def conventions(points: Points, settings: Settings) -> list[Row]:
    """The exponents of the same runs under every way of counting N and C that the table allows.

    Iso-FLOP exponents are null where the runs of one budget no longer cost the same.
    """
    rows = []
    quick = replace(settings, draws=min(settings.draws, MOST_DRAWS))
    for params in PARAM_CONVENTIONS:
        try:
            found = fit_parametric(fitted_rows(count(points, params), quick.fitted_law), quick)
        except Unsupported:
            continue
        for flops in FLOP_CONVENTIONS:
            if flops != "6nd" and flops not in points.flops_by:
                continue
            recounted = count(points, params, flops)
            values = as_counted(found, flops_growth(recounted, flops))
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


def as_counted(found: Parametric, growth: float) -> dict[str, Any]:
    """E, alpha, beta, a and b of a law whose tokens cost N^growth."""
    value, drawn = (
        in_roles(found, theta, growth) for theta in (found.fitted.theta[None], found.draws)
    )
    return {k: number(float(value[k][0]), drawn[k]) for k in CONSTANTS} | {"growth": growth}


def kaplan_count(points: Points, found: Parametric | None) -> dict[str, Any] | None:
    """What leaving the embeddings out of N and C does to this law's exponent a, by Pearce & Song's
    conversion on the sizes of these runs.
    """
    if not split_known(found):
        return None
    total, bare = (count(points, name).params for name in ("total", "non_embedding"))
    constants = {k: float(v[0]) for k, v in in_roles(found, found.fitted.theta[None], 1.0).items()}
    expected = ladder_exponent(constants, bare, total)
    return None if expected is None else {"a": expected, "total": float(constants["a"])}
