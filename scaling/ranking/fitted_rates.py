"""The best learning rate between those that were tried, with its interval, at each setting of the
other keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from scaling.ranking.configurations import Configuration, Key
from scaling.ranking.seed_noise import seed_noise
from scaling.report.number_text import three_digits

LEVEL = 0.9
NEAR = 2.2  # factors of two from the lowest point in which points are fitted
RISE = 0.1  # the part of the lowest loss that a fitted point may lie above it
BEND = (0.1, 0.01)
"""How far a curve departs from its parabola: standard deviations of its cubic and quartic terms, in
factors of two, as shares of the quadratic one. Losses rise faster above the best rate than below:
with pure parabolas, 90 % intervals of such curves covered 50 % and less."""
FEWEST = 3  # rates
EXACT = 1e-6  # least noise, as a share of the curvature, for losses without any
REACH, FINE = 1.5, 0.005  # of the search for the ends of intervals, in factors of two


@dataclass(frozen=True)
class Curve:
    """The metric (better if lower) over one key, the others being `at` their values: `x` [n] are
    binary logarithms of the key, `y` [n] means over `counts` [n] seeds, `configurations` [n] the
    places of the points among all configurations."""

    at: dict[str, Any]
    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    configurations: tuple[int, ...]

    def near(self) -> "Curve":
        """The points near the lowest: it, its neighbours, and others not far in rate and loss."""
        x, y = self.x[self.lowest], self.y[self.lowest]
        kept = (np.abs(self.x - x) <= NEAR) & (self.y <= y + RISE * abs(y))
        kept[self.three] = True
        chosen = np.flatnonzero(kept)
        return Curve(self.at, self.x[chosen], self.y[chosen], self.counts[chosen],
                     tuple(self.configurations[i] for i in chosen))  # fmt: skip

    @property
    def lowest(self) -> int:
        return int(self.y.argmin())

    @property
    def three(self) -> slice:
        """The lowest point and its neighbours."""
        first = min(max(self.lowest - 1, 0), len(self.x) - FEWEST)
        return slice(first, first + FEWEST)

    @property
    def curvature(self) -> float:
        """The quadratic coefficient through the lowest point and its neighbours."""
        return float(np.polyfit(self.x[self.three], self.y[self.three], 2)[0])

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
        noise = seed_noise([found[i] for i in many])
        return float(noise.variances.mean()), noise.total
    freedom = sum(len(curve.x) - FEWEST for curve in near)
    return sum(curve.misfit for curve in near) / max(freedom, 1), float(freedom)


def _minimum(
    whole: Curve, curve: Curve, curvature: float, variance: float, freedom: float, sign: float
) -> dict[str, Any]:
    """What is known of a curve's minimum; `reason` says what is not."""
    if curvature <= 0:
        return {"reason": "no minimum: the curve does not bend there; try rates further apart"}
    origin, (start, end) = curve.x[curve.lowest], (whole.x[0], whole.x[-1])
    constants, covariance = _polynomial(curve, curvature, variance)
    rates = np.arange(start - origin - REACH, end - origin + REACH, FINE)
    powers = np.arange(1, len(constants))
    slopes = np.pad(rates[:, None] ** (powers - 1) * powers, ((0, 0), (1, 0)))
    slope = slopes @ constants
    rising = np.flatnonzero((slope[:-1] < 0) & (slope[1:] >= 0))
    if not len(rising):
        return {"reason": _beyond(whole, smallest=slope[len(slope) // 2] > 0)}
    least = rising[np.abs(rates[rising]).argmin()]
    best = rates[least] + origin
    if not start <= best <= end:
        return {"reason": _beyond(whole, smallest=best < start)}
    loss = sign * float(np.polyval(constants[::-1], rates[least]))
    row = {"value": float(2**best), "loss": loss, "inside": True}
    if freedom < 1:
        return row | {"reason": "one seed and three rates: no interval"}
    z = slope / np.sqrt(np.einsum("xi,ij,xj->x", slopes, covariance, slopes))
    far = stdtrit(freedom, (1 + LEVEL) / 2)
    below, above = np.flatnonzero(z[:least] < -far), least + np.flatnonzero(z[least:] > far)
    low = float(2 ** (rates[below[-1]] + origin)) if len(below) else None
    high = float(2 ** (rates[above[0]] + origin)) if len(above) else None
    row |= {"lo": low, "hi": high}
    if low is None or high is None:
        return row | {"reason": "no bounds" if low is high else "no bound on one side"}
    beyond = low < 2**start or high > 2**end
    return row | {"reason": "the interval reaches beyond the rates tried" if beyond else ""}


def _polynomial(curve: Curve, curvature: float, variance: float) -> tuple[np.ndarray, np.ndarray]:
    """The constants of powers 0 to 4 of the distance from the lowest point, and their covariance:
    least squares, with the cubic and quartic constants held near 0 by normal priors."""
    x = (curve.x - curve.x[curve.lowest])[:, None] ** np.arange(5)
    weights = curve.counts / max(variance, (EXACT * curvature) ** 2)
    prior = np.diag([0, 0, 0, *(1 / (bend * curvature) ** 2 for bend in BEND)])
    covariance = np.linalg.inv(x.T @ (weights[:, None] * x) + prior)
    return covariance @ (x.T @ (weights * curve.y)), covariance


def _beyond(whole: Curve, smallest: bool) -> str:
    """Why a minimum outside the grid is not reported."""
    end, further = ("smallest", "smaller") if smallest else ("largest", "larger")
    rate = three_digits(2 ** float(whole.x[0 if smallest else -1]))
    return f"the fitted minimum is beyond the {end} rate, {rate}: try {further} rates"
