"""Keys whose effects are mixed up: the trials with a good value of one also differ in another."""

from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import chdtrc

from scaling.ranking.best_set import holm
from scaling.ranking.marginal_effects import AdditiveModel, Factor
from scaling.report.number_text import brief, three_digits

MATTERS = 0.05  # p-value of an association, over all pairs, and of a key that explains something
PART = 0.25  # of the advantage of a good value that another key explains


def confounding(model: AdditiveModel, sign: float) -> list[dict[str, Any]]:
    """Pairs of keys that the trials mix up, as {"keys", "text"}, the worst kind first: keys that
    always move together; keys whose values go together more than by chance; keys whose best value
    owes PART of its advantage to another key that matters, even if by chance."""
    return [*_twins(model), *_associated(model), *_borrowed(model, sign)]


def _twins(model: AdditiveModel) -> list[dict[str, Any]]:
    return [
        _entry(
            factor,
            twin,
            f"{factor.key.name} and {twin.key.name} always move together: their "
            "effects cannot be distinguished",
        )
        for factor in model.factors
        for twin in factor.twins
    ]


def _associated(model: AdditiveModel) -> list[dict[str, Any]]:
    """Pairs that are associated by a chi-squared test (of the rank correlation where both keys have
    an order), adjusted over the pairs."""
    pairs = list(combinations(model.factors, 2))
    adjusted = holm(np.array([_association(a, b) for a, b in pairs])) if pairs else ()
    return [
        _entry(
            a,
            b,
            f"{a.key.name} and {b.key.name} go together in these trials: their effects "
            "are hard to tell apart",
        )
        for (a, b), p in zip(pairs, adjusted, strict=True)
        if p < MATTERS
    ]


def _association(a: Factor, b: Factor) -> float:
    """The p-value of independence of two factors over the configurations."""
    if "category" not in (a.key.scale, b.key.scale):
        r = np.corrcoef(_ranks(a), _ranks(b))[0, 1]
        return float(chdtrc(1, (len(a.level) - 1) * r**2))
    table = np.zeros((len(a.labels), len(b.labels)))
    np.add.at(table, (a.level, b.level), 1)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    return float(chdtrc(freedom, ((table - expected) ** 2 / expected).sum()))


def _ranks(factor: Factor) -> np.ndarray:
    return np.searchsorted(np.sort(factor.values), factor.values)


def _borrowed(model: AdditiveModel, sign: float) -> list[dict[str, Any]]:
    """Keys whose best value would look worse if the trials with it did not differ in another key:
    the bias of an omitted variable in a difference of means."""
    entries = []
    p_values = map(model.p_value, range(len(model.factors)))
    matter = [p is not None and p < MATTERS for p in p_values]
    for a, factor in enumerate(model.factors):
        means = [sign * model.y[factor.level == g].mean() for g in range(len(factor.labels))]
        good = factor.level == int(np.argmin(means))
        advantage = model.y[good].mean() - model.y[~good].mean()
        for b, other in enumerate(model.factors):
            if a == b or not matter[b] or not advantage:
                continue
            shift = other.columns[good].mean(axis=0) - other.columns[~good].mean(axis=0)
            part = float(shift @ model.constants[model.at[b]]) / advantage
            if part >= PART:
                entries.append(_entry(factor, other, _owes(factor, other, good, part)))
    return entries


def _owes(factor: Factor, other: Factor, good: np.ndarray, part: float) -> str:
    label = factor.labels[factor.level[good.argmax()]]
    about = f"about {three_digits(label)}" if factor.degree else brief(label)
    here, rest = (_typical(other, members) for members in (good, ~good))
    difference = f"{here} there, {rest} in the rest" if here != rest else "in other shares"
    share = f"{part:.0%} of their advantage" if part < 1 else "all of their advantage"
    return (
        f"the {good.sum()} configurations with {factor.key.name} {about} also differ in "
        f"{other.key.name} ({difference}), which explains {share}"
    )


def _typical(factor: Factor, members: np.ndarray) -> str:
    """The median value of a key with an order over some configurations, or the most frequent."""
    if factor.key.scale != "category":
        return three_digits(float(np.median(factor.values[members])))
    return brief(factor.labels[np.bincount(factor.level[members]).argmax()])


def _entry(a: Factor, b: Factor, text: str) -> dict[str, Any]:
    return {"keys": [a.key.key, b.key.key], "text": text}
