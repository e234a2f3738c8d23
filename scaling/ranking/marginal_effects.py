"""What each varied key does: mean of the metric at its values, adjusted for the other keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from scipy.special import fdtrc, stdtrit

from scaling.ranking.best_set import holm
from scaling.ranking.configurations import Configuration, Key
from scaling.ranking.seed_noise import seed_noise

MOST_LEVELS = 6  # distinct values of a numeric key, above which its effect is a polynomial
DEGREES, FREEDOM = (2, 1), 5  # of the polynomial: the first that leaves so much freedom
BINS = 4  # of equally many configurations, in which a polynomial is shown
ROUNDING = 1e-10  # of the largest mean: what least squares leave where the model is exact
ENOUGH = 2  # configurations for each value of a text key


@dataclass(frozen=True)
class Factor:
    """A key as a part of the additive model. `level` [n] is the group of each of n configurations,
    `labels` a value for each group, its own or the median; `values` [n] are the numbers themselves
    (groups again, where they are text). `columns` [n, c] are the part's columns in the model,
    `shown` [groups, c] those at the labels: indicators of groups, or powers of the (logarithm of
    the) value where `degree` is not 0."""

    key: Key
    values: np.ndarray
    level: np.ndarray
    labels: tuple[Any, ...]
    columns: np.ndarray
    shown: np.ndarray
    degree: int = 0
    twins: tuple["Factor", ...] = ()  # keys that group the configurations in the same way


@dataclass(frozen=True)
class AdditiveModel:
    """The metric as a sum of a constant and an effect of each key, by least squares over the
    configurations' means [n]. `left` is the sum of squares that it leaves. `variance`, with
    `freedom`, is the noise of a mean that effects are compared with: that over seeds where every
    combination of values was tried with several, otherwise all that the model leaves, interactions
    too."""

    factors: tuple[Factor, ...]
    y: np.ndarray
    x: np.ndarray = field(repr=False)  # [n, 1 + columns of all factors]
    at: tuple[slice, ...]  # the columns of each factor
    inverse: np.ndarray = field(repr=False)  # pseudoinverse of x'x
    constants: np.ndarray
    left: float
    variance: float
    freedom: float

    def adjusted(self, factor: int, level: int) -> tuple[float, float]:
        """The mean at a group of a factor, had all configurations been in it with the rest of
        their settings as they are, and its standard error."""
        row = self.x.mean(axis=0)
        row[self.at[factor]] = self.factors[factor].shown[level]
        error = np.sqrt(max(0.0, row @ self.inverse @ row) * self.variance)
        return float(row @ self.constants), float(error)

    def p_value(self, factor: int) -> float | None:
        """Of "this key has no effect": an F test of the model without the key against the model;
        None if the other keys determine this one, or no freedom is left."""
        rank, _, _ = least_squares(self.x, self.y)
        without, _, left = least_squares(np.delete(self.x, self.at[factor], axis=1), self.y)
        gone, explained = rank - without, max(0.0, left - self.left)
        if gone < 1 or self.freedom < 1:
            return None
        if self.variance == 0:
            return 0.0 if explained > 0 else 1.0
        return float(fdtrc(gone, self.freedom, explained / gone / self.variance))


def factors(found: Sequence[Configuration], keys: Sequence[Key]) -> list[Factor]:
    """The keys that have two values or more among the configurations. Numeric keys of many values
    are polynomials, of such a degree that FREEDOM is left. Keys that always move together are one
    factor, the first, and its twins. Text keys with a value for nearly each configuration are left
    out."""
    for degree in DEGREES:
        alike: dict[bytes, list[Factor]] = {}
        for key in keys:
            if made := _factor(found, key, degree):
                alike.setdefault(_partition(made), []).append(made)
        joined = [replace(group[0], twins=tuple(group[1:])) for group in alike.values()]
        if len(found) - sum(one.columns.shape[1] for one in joined) > FREEDOM:
            break
    return joined


def _partition(factor: Factor) -> bytes:
    """Equal for keys that move together: groups of the same configurations, or, for polynomials,
    the same order of them, in either direction."""
    if factor.degree:
        ranks = np.searchsorted(np.sort(factor.values), factor.values)
        return max(
            ranks.tobytes(), np.searchsorted(np.sort(-factor.values), -factor.values).tobytes()
        )
    _, first, group = np.unique(factor.level, return_index=True, return_inverse=True)
    return first[group].tobytes()


def additive_model(found: Sequence[Configuration], keys: Sequence[Key]) -> AdditiveModel | None:
    """Fits the additive model of all keys; None if the configurations differ in none."""
    made = factors(found, keys)
    if not made:
        return None
    y = np.array([one.mean for one in found])
    parts = [one.columns for one in made]
    ends = np.cumsum([1, *(part.shape[1] for part in parts)])
    at = tuple(slice(a, b) for a, b in pairwise(ends))
    x = np.concatenate([np.ones((len(y), 1)), *parts], axis=1)
    rank, constants, left = least_squares(x, y)
    inverse, freedom = np.linalg.pinv(x.T @ x, hermitian=True), float(len(y) - rank)
    variance = left / freedom if freedom else float("nan")
    crossed = prod(len(one.labels) for one in made if not one.degree) == len(found)
    if crossed and all(len(one.trials) > 1 for one in found):
        noise = seed_noise(found)
        variance, freedom = float((noise.variances / noise.counts).mean()), noise.total
    return AdditiveModel(tuple(made), y, x, at, inverse, constants, left, variance, freedom)


def least_squares(x: np.ndarray, y: np.ndarray) -> tuple[int, np.ndarray, float]:
    """The rank of x [n, c], constants [c] and the sum of squares that they leave of y [n], by the
    normal equations: columns are indicators or standardized, and there may be thousands of rows."""
    gram = x.T @ x
    constants = np.linalg.pinv(gram, hermitian=True) @ (x.T @ y)
    left = float(((y - x @ constants) ** 2).sum())
    exact = left < len(y) * (ROUNDING * np.abs(y).max()) ** 2
    return int(np.linalg.matrix_rank(gram, hermitian=True)), constants, 0.0 if exact else left


def effects(model: AdditiveModel, level: float, families: int = 1) -> list[dict[str, Any]]:
    """For each key its marginal means with intervals and the p-value of its effect, adjusted over
    the keys by Holm, times `families`; {"key", "marginal", "p", "note"}. With no freedom left,
    plain means."""
    raw = [model.p_value(i) for i in range(len(model.factors))]
    tested = [i for i, p in enumerate(raw) if p is not None]
    adjusted = dict(zip(tested, holm(np.array([raw[i] for i in tested])), strict=True))
    rows = []
    for i, factor in enumerate(model.factors):
        p = min(1.0, families * float(adjusted[i])) if i in tested else None
        together = (factor, *factor.twins)
        for one in together:
            others = [other.key.key for other in together if other is not one]
            marginal = _marginal(model, i, one, level if p is not None else None)
            rows.append({"key": one.key.key, "marginal": marginal, "p": p})
            rows[-1]["note"] = _note(model, one, p, others)
    return rows


def _marginal(
    model: AdditiveModel, i: int, shown: Factor, level: float | None
) -> list[dict[str, Any]]:
    """The mean at each group of factor i: adjusted, with its interval, or plain without a level.
    The groups are named by the values of `shown`, which is the factor or moves with it."""
    rows = {}
    for group in range(len(model.factors[i].labels)):
        members = model.factors[i].level == group
        place = int(np.median(shown.level[members]))
        mean = float(model.y[members].mean())
        row = {"value": shown.labels[place], "mean": mean, "lo": None, "hi": None}
        if level is not None:
            mean, error = model.adjusted(i, group)
            reach = float(stdtrit(model.freedom, (1 + level) / 2)) * error
            row |= {"mean": mean, "lo": mean - reach, "hi": mean + reach}
        rows[place] = row | {"n": int(members.sum())}
    return [rows[place] for place in sorted(rows)]


def _note(model: AdditiveModel, factor: Factor, p: float | None, others: Sequence[str]) -> str:
    """What must be known to read an effect; '' if nothing."""
    notes = []
    if others:
        notes.append(f"moves with {', '.join(others)}: their effects cannot be distinguished")
    if p is None and model.freedom:
        notes.append("the other keys determine this one, so its effect cannot be separated")
    elif p is None:
        notes.append("too few configurations for intervals: plain means")
    if factor.degree:
        curve = "a parabola" if factor.degree == 2 else "a straight line"
        over = "the logarithm" if factor.key.scale == "log" else "the value"
        notes.append(f"{curve} in {over}, at the medians of {len(factor.labels)} equal groups")
    return "; ".join(notes)


def _factor(found: Sequence[Configuration], key: Key, degree: int) -> Factor | None:
    """A key as a factor; None if all configurations have one value."""
    places = [one.places[key.key] for one in found]
    present, level = np.unique(places, return_inverse=True)
    text = key.scale == "category"
    if len(present) < 2 or (text and len(present) > len(found) / ENOUGH):
        return None
    labels = tuple(key.values[place] for place in present)
    values = level if text else np.array(labels, float)[level]
    if text or len(present) <= MOST_LEVELS:
        shown = np.eye(len(labels))[:, 1:]
        return Factor(key, values, level, labels, shown[level], shown)
    # The rank of a value decides its bin, so that equal values share one.
    ranks = np.searchsorted(np.sort(level), level)
    binned = np.unique(ranks * BINS // len(level), return_inverse=True)[1]
    medians = [float(np.median(values[binned == b])) for b in range(binned.max() + 1)]
    position = np.log if key.scale == "log" else np.asarray
    middle, width = position(values).mean(), position(values).std()
    columns, shown = (
        ((position(v) - middle) / width)[:, None] ** np.arange(1, degree + 1)
        for v in (values, np.array(medians))
    )
    labels = tuple(int(m) if m.is_integer() else m for m in medians)
    return Factor(key, values, binned, labels, columns, shown, degree)
