"""The best learning rate between those that were tried, with its interval, at each setting of the
other keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from scaling.ranking.configurations import Configuration, Key
from scaling.ranking.seed_noise import SeedNoise, seed_noise

LEVEL = 0.9
NEAR = 2.2  # factors of two from the lowest point in which points are fitted
RISE = 0.1  # the part of the lowest loss that a fitted point may lie above it
BEND = (0.1, 0.01)
"""How far a curve departs from its parabola: standard deviations of its cubic and quartic terms, in
factors of two, as shares of the quadratic one. Losses rise faster above the best rate than below:
with pure parabolas, 90 % intervals of such curves covered 50 % and less."""
FEWEST = 3  # rates
REACH, FINE = 1.5, 0.005  # of the search for the ends of intervals, in factors of two


@dataclass(frozen=True)
class Curve:
    """The metric (better if lower) over one key: `x` [n] is the binary logarithm of its values, `y`
    [n] means over `counts` [n] seeds, `spread` [n] their standard deviations and `freedom` [n]."""

    at: dict[str, Any]
    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    configurations: tuple[int, ...]

    def near(self) -> "Curve":
        """The points near the lowest: it, its neighbours, and others not far in rate and loss."""
        low = self.lowest
        kept = (np.abs(self.x - self.x[low]) <= NEAR) & (
            self.y <= self.y[low] + RISE * abs(self.y[low])
        )
        first = min(max(low - 1, 0), len(self.x) - FEWEST)
        kept[first : first + FEWEST] = True
        chosen = np.flatnonzero(kept)
        return Curve(self.at, self.x[chosen], self.y[chosen], self.counts[chosen],
                     tuple(self.configurations[i] for i in chosen))  # fmt: skip

    @property
    def lowest(self) -> int:
        return int(self.y.argmin())

    @property
    def curvature(self) -> float:
        """The quadratic coefficient through the lowest point and its neighbours."""
        first = min(max(self.lowest - 1, 0), len(self.x) - FEWEST)
        three = slice(first, first + FEWEST)
        return float(np.polyfit(self.x[three], self.y[three], 2)[0])

    @property
    def misfit(self) -> float:
        """The sum of squares that the best parabola leaves."""
        return float(((self.y - np.polyval(np.polyfit(self.x, self.y, 2), self.x)) ** 2).sum())


def fitted_rates(
    found: Sequence[Configuration], keys: Sequence[Key], sign: float
) -> list[dict[str, Any]]:
    """The fitted minimum over each learning rate at every setting of the other keys that has three
    rates or more: {"key", "at", "value", "lo", "hi", "loss", "inside", "reason", "level"}."""
    return [
        row
        for key in keys
        if is_rate(key)
        for row in _minima(key, _curves(found, key, keys, sign), found, sign)
    ]


def is_rate(key: Key) -> bool:
    """Whether a key is a learning rate with values that have logarithms."""
    return "learning_rate" in key.name and key.scale != "category" and min(key.values) > 0


def _curves(
    found: Sequence[Configuration], key: Key, keys: Sequence[Key], sign: float
) -> list[Curve]:
    others = [other for other in keys if other is not key]
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, one in enumerate(found):
        groups.setdefault(tuple(one.places[other.key] for other in others), []).append(i)
    curves = []
    for place in sorted(groups):
        members = sorted(groups[place], key=lambda i: found[i].values[key.key])
        if len(members) >= FEWEST:
            at = {other.key: other.values[p] for other, p in zip(others, place, strict=True)}
            x = np.log2([found[i].values[key.key] for i in members])
            y = sign * np.array([found[i].mean for i in members])
            counts = np.array([len(found[i].trials) for i in members])
            curves.append(Curve(at, x, y, counts, tuple(members)))
    return curves


def _minima(
    key: Key, curves: Sequence[Curve], found: Sequence[Configuration], sign: float
) -> list[dict[str, Any]]:
    """Each curve's minimum by a parabola in the logarithm of the rate through the points near the
    lowest one, with cubic and quartic terms that are held small by a prior, BEND.

    The interval holds the rates at which the slope of the curve is within noise of 0: Fieller's
    method for a ratio, which is exact for a parabola. The noise is that of seeds, or, with one
    seed, what the parabolas leave, which counts their misfit as noise: wider than need be.
    """
    if not curves:
        return []
    near = [curve.near() for curve in curves]
    variance, freedom = _noise(near, found)
    curvature = float(np.median([curve.curvature for curve in near]))
    rows = []
    for whole, curve in zip(curves, near, strict=True):
        row = {"key": key.key, "at": curve.at, "value": None, "lo": None, "hi": None}
        row |= {"loss": None, "inside": False, "reason": "", "level": LEVEL}
        rows.append(row | _minimum(whole, curve, curvature, variance, freedom, sign))
    return rows


def _noise(near: Sequence[Curve], found: Sequence[Configuration]) -> tuple[float, float]:
    """The variance of one trial and its degrees of freedom; 0 of these if it is unknown."""
    used = {i for curve in near for i in curve.configurations}
    if many := [i for i in sorted(used) if len(found[i].trials) > 1]:
        noise: SeedNoise = seed_noise([found[i] for i in many])
        return float(noise.variances.mean()), float(noise.total)
    freedom = sum(len(curve.x) - FEWEST for curve in near)
    return sum(curve.misfit for curve in near) / max(freedom, 1), float(freedom)


def _minimum(
    whole: Curve, curve: Curve, curvature: float, variance: float, freedom: float, sign: float
) -> dict[str, Any]:
    """What is known of a curve's minimum; `reason` says what is not."""
    lowest = curve.x[curve.lowest]
    if curvature <= 0:
        return {
            "reason": "the loss does not bend upwards: rates further apart would show a minimum"
        }
    powers = np.arange(5)
    x = (curve.x - lowest)[:, None] ** powers
    weights = curve.counts / max(variance, (1e-6 * curvature) ** 2)
    prior = np.diag([0, 0, 0, *(1 / (bend * curvature) ** 2 for bend in BEND)])
    covariance = np.linalg.inv(x.T @ (weights[:, None] * x) + prior)
    constants = covariance @ (x.T @ (weights * curve.y))
    rates = np.arange(whole.x[0] - lowest - REACH, whole.x[-1] - lowest + REACH, FINE)
    slopes = np.concatenate(
        [np.zeros((len(rates), 1)), rates[:, None] ** powers[:-1] * powers[1:]], axis=1
    )
    slope = slopes @ constants
    error = np.sqrt(np.einsum("xi,ij,xj->x", slopes, covariance, slopes))
    rising = np.flatnonzero((slope[:-1] < 0) & (slope[1:] >= 0))
    if not len(rising):
        return {"reason": _beyond(whole, "smallest" if slope[len(slope) // 2] > 0 else "largest")}
    least = rising[np.abs(rates[rising]).argmin()]
    best = rates[least] + lowest
    if not whole.x[0] <= best <= whole.x[-1]:
        return {"reason": _beyond(whole, "smallest" if best < whole.x[0] else "largest")}
    loss = sign * float((rates[least] ** powers) @ constants)
    row = {"value": float(2**best), "loss": loss, "inside": True}
    if freedom < 1:
        return row | {"reason": "one seed and three rates: no interval"}
    z = slope / error
    reach = stdtrit(freedom, (1 + LEVEL) / 2)
    below, above = np.flatnonzero(z[:least] < -reach), np.flatnonzero(z[least:] > reach)
    if len(below):
        row["lo"] = float(2 ** (rates[below[-1]] + lowest))
    if len(above):
        row["hi"] = float(2 ** (rates[least + above[0]] + lowest))
    out = [end for end, ok in (("low", len(below)), ("high", len(above))) if not ok]
    reason = f"no bound on the {' and the '.join(out)} side" if out else ""
    if not out and not (whole.x[0] <= np.log2(row["lo"]) and np.log2(row["hi"]) <= whole.x[-1]):
        reason = "the interval reaches beyond the rates that were tried"
    return row | {"reason": reason}


def _beyond(whole: Curve, end: str) -> str:
    """Why a minimum outside the grid is not reported."""
    rate = 2 ** whole.x[0 if end == "smallest" else -1]
    further = "smaller" if end == "smallest" else "larger"
    return f"the fitted minimum is beyond the {end} rate, {rate:.3g}: try {further} rates"
