"""How much of the variance of a metric each key explains, alone and with another: fANOVA."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from scaling.ranking.configurations import Configuration, Key

METHOD = "fANOVA over a random forest (Hutter et al. 2014), times its out-of-bag R²"
EXTRA = "importances need scikit-learn: pip install -e '.[search]'"
FEWEST = 8  # configurations
TREES, LEAVES, SAMPLE = 64, 64, 500  # trees; leaves of a tree; most trials that one is grown on
MOST_KEYS = 8  # whose pairs are looked at, the most important
LITTLE = 0.6  # of the variance, below which a forest has not learned what keys do
SEED = 0

Share = dict[str, float]


def importance(
    found: Sequence[Configuration], keys: Sequence[Key], level: float
) -> tuple[dict[str, Share], list[dict[str, Any]], str]:
    """The shares of variance of each key and of the interaction of each pair, largest first, as
    {"value", "lo", "hi"}; and what must be known of them, or why there are none, or ''.

    A forest is grown on the trials. In each tree the metric is averaged over all other keys, whose
    values count equally, tried together or not: what remains varies with one key (or two) alone
    (Hutter et al. 2014, "An efficient approach for assessing hyperparameter importance", eqs. 5 to
    9). These shares of the forest's variance are multiplied by the out-of-bag R², the share of the
    metric's variance that the forest predicts for trials that it has not seen, so noise has no
    importance. Intervals are quantiles over trees, each of which has its own bootstrap sample.
    """
    keys = [key for key in keys if len({one.places[key.key] for one in found}) > 1]
    if len(found) < FEWEST or not keys:
        return {}, [], f"{len(found)} configurations are too few for importances; {FEWEST} do"
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError:
        return {}, [], EXTRA
    repeats = [len(one.trials) for one in found]
    places = [[one.places[key.key] for one in found] for key in keys]
    x = np.stack([np.unique(place, return_inverse=True)[1] for place in places], axis=1)
    x, y = np.repeat(x, repeats, axis=0), np.concatenate([one.measured for one in found])
    if np.ptp(y) == 0:
        return {}, [], "all trials have the same value of the metric"
    forest = RandomForestRegressor(
        TREES,
        max_leaf_nodes=LEAVES,
        max_samples=min(len(y), SAMPLE),
        oob_score=True,
        random_state=SEED,
    ).fit(x, (y - y.mean()) / y.std())
    explained = max(0.0, float(forest.oob_score_))
    levels = x.max(axis=0) + 1
    partitions = [Partition.of(tree.tree_, levels) for tree in forest.estimators_]
    partitions = [one for one in partitions if one.variance() > 0]
    whole = np.array([one.variance() for one in partitions])

    def share(parts: list[float]) -> Share:
        shares = explained * np.array(parts) / whole
        low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
        return {"value": float(shares.mean()), "lo": float(low), "hi": float(high)}

    alone = [share([one.main_effect(k) for one in partitions]) for k in range(len(keys))]
    leading = sorted(sorted(range(len(keys)), key=lambda k: -alone[k]["value"])[:MOST_KEYS])
    pairs = []
    for a, b in combinations(leading, 2):
        together = share([one.interaction(a, b) for one in partitions])
        pairs.append({"keys": [keys[a].key, keys[b].key], "importance": together})
    pairs.sort(key=lambda pair: -pair["importance"]["value"])
    little = f"a forest of these {len(y)} trials predicts {explained:.0%} of the variance, so the "
    little += "shares of keys are too small: the means and p are the better guide"
    return {key.key: alone[k] for k, key in enumerate(keys)}, pairs, little * (explained < LITTLE)


@dataclass(frozen=True)
class Partition:
    """A tree as its leaves: `values` [leaves], and for each key its segments between cuts:
    `lengths` [segments] as shares of the key's values, and `inside` [leaves, segments], whether a
    leaf holds a segment."""

    values: np.ndarray
    lengths: tuple[np.ndarray, ...]
    inside: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, tree: Any, levels: np.ndarray) -> "Partition":
        """The leaves of a scikit-learn tree over positions 0 to levels - 1 of each key."""
        low, high = np.zeros((2, tree.node_count, len(levels)), int)
        high[0] = levels
        for node in np.flatnonzero(tree.children_left >= 0):  # a parent comes before its children
            left, right, key = (
                tree.children_left[node],
                tree.children_right[node],
                tree.feature[node],
            )
            low[[left, right]], high[[left, right]] = low[node], high[node]
            high[left, key] = low[right, key] = int(tree.threshold[node]) + 1
        leaves = tree.children_left < 0
        low, high = low[leaves], high[leaves]
        lengths, inside = [], []
        for key, count in enumerate(levels):
            cuts = np.unique([low[:, key], high[:, key]])
            lengths.append(np.diff(cuts) / count)
            held = (low[:, key, None] <= cuts[:-1]) & (high[:, key, None] >= cuts[1:])
            inside.append(held.astype(float))
        return cls(tree.value[leaves, 0, 0], tuple(lengths), tuple(inside))

    @cached_property
    def shares(self) -> np.ndarray:
        """The share [leaves, keys] of each key's values that a leaf holds."""
        return np.stack([i @ w for i, w in zip(self.inside, self.lengths, strict=True)], axis=1)

    @cached_property
    def mean(self) -> float:
        return float(self.values @ self.shares.prod(axis=1))

    def variance(self) -> float:
        """Over all values of all keys, each combination counted once."""
        return float((self.values - self.mean) ** 2 @ self.shares.prod(axis=1))

    @cached_property
    def alone(self) -> list[np.ndarray]:
        """The deviation from the mean at each segment of each key, over all values of others."""
        rest = [np.delete(self.shares, key, axis=1).prod(axis=1) for key in range(len(self.inside))]
        weights = [self.values * share for share in rest]
        return [w @ inside - self.mean for w, inside in zip(weights, self.inside, strict=True)]

    def interaction(self, a: int, b: int) -> float:
        """The variance that two keys explain together beyond each alone."""
        weights = self.values * np.delete(self.shares, (a, b), axis=1).prod(axis=1)
        both = (self.inside[a] * weights[:, None]).T @ self.inside[b] - self.mean
        beyond = both - self.alone[a][:, None] - self.alone[b]
        return float(self.lengths[a] @ beyond**2 @ self.lengths[b])

    def main_effect(self, key: int) -> float:
        """The variance that a key explains alone."""
        return float(self.alone[key] ** 2 @ self.lengths[key])
