"""Builds sweeps: plain lists of override dicts, the same list on every run.

Keys are dotted config keys; an axis is any ordered iterable of values, a NumPy array too:

    chain(grid({'model.d_model': [64, 128], 'optimizer.learning_rate': [1e-3, 3e-3]}),
          sample({'optimizer.learning_rate': log_uniform(1e-4, 1e-2)}, n=20, seed=0))
"""

import itertools
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from configs.distributions import Choice, Integers, LogUniform, Uniform, in_order

Overrides = dict[str, Any]

uniform, log_uniform, integers, choice = Uniform, LogUniform, Integers, Choice
"""What a key of `sample` or `search` may be; configs/distributions.py describes them."""


def grid(axes: Mapping[str, Iterable]) -> list[Overrides]:
    """Every combination of the values of all keys; the last key varies fastest."""
    axes = {key: in_order(f"grid: {key}", values) for key, values in axes.items()}
    return [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]


def zip_(axes: Mapping[str, Iterable]) -> list[Overrides]:
    """The first value of every key, then the second …: keys that move together."""
    axes = {key: in_order(f"zip_: {key}", values) for key, values in axes.items()}
    lengths = {key: len(values) for key, values in axes.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"zip_ needs as many values for each key, got {lengths}")
    return [dict(zip(axes, row, strict=True)) for row in zip(*axes.values(), strict=True)]


def chain(*spaces: Iterable[Overrides]) -> list[Overrides]:
    """One sweep after the other."""
    return [dict(overrides) for space in spaces for overrides in space]


def product(*spaces: Iterable[Overrides]) -> list[Overrides]:
    """Every override dict of one space joined with every one of the next; no key may be in two."""
    joined = []
    for parts in itertools.product(*spaces):
        keys = [key for part in parts for key in part]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"product: {', '.join(twice)} is set by two of the spaces; drop one")
        joined.append({key: value for part in parts for key, value in part.items()})
    return joined


def sample(axes: Mapping[str, Any], n: int, seed: int) -> list[Overrides]:
    """n random draws. An axis is a distribution, or a constant that every draw keeps.

    Each key has its own generator: adding a key to the sweep changes no other key's draws,
    and a larger n only adds draws at the end.
    """
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"sample: n={n} must be a whole number of at least 1")
    columns = {}
    for key, axis in axes.items():
        generator = random.Random(f"{seed}:{key}")
        columns[key] = [axis(generator) if callable(axis) else axis for _ in range(n)]
    return [{key: column[i] for key, column in columns.items()} for i in range(n)]


def seeds(space: Iterable[Overrides], n: int, first: int = 0) -> list[Overrides]:
    """Each trial with n seeds: as it is, with the config's seed `first`, then with first + 1, ….

    The copies with the same new seed come after all originals. Trials that set a seed of their own
    are kept as they are. The spread over seeds is what tells a better setting from a lucky run.
    """
    if not isinstance(n, Integral) or n < 1:
        raise ValueError(f"seeds={n} must be a whole number of at least 1")
    trials = chain(space)
    again = [trial for trial in trials if "seed" not in trial]
    return trials + [trial | {"seed": first + i} for i in range(1, n) for trial in again]


@dataclass(frozen=True)
class Search:
    """A method that chooses the trials, the axes it chooses from, and when it ends."""

    method: str
    axes: Mapping[str, Any]
    trials: int = 0
    seed: int = 0
    budget: str = ""


def search(
    method: str, axes: Mapping[str, Any], trials: int = 0, seed: int = 0, budget: str = ""
) -> Search:
    """What a config file's `get_search` returns; docs/search.md lists the methods.

    An axis is a distribution, a list (one of its values), or a constant that every trial keeps. The
    search ends after so many `trials` (0: no limit; a grid ends by itself), or when the next one
    would exceed its `budget`: "1e15 flops", "2e8 tokens" or "3 hours".
    """
    axes = {key: Choice(axis) if isinstance(axis, list) else axis for key, axis in axes.items()}
    return Search(method, axes, trials, seed, budget)
