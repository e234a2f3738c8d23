"""Builds sweeps: plain lists of override dicts, the same list on every run.

Keys are dotted config keys; an axis is any ordered iterable of values, a NumPy array too:

    chain(grid({'model.d_model': [64, 128], 'optimizer.learning_rate': [1e-3, 3e-3]}),
          sample({'optimizer.learning_rate': log_uniform(1e-4, 1e-2)}, n=20, seed=0))
"""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Set
from numbers import Integral
from typing import Any

Overrides = dict[str, Any]
Distribution = Callable[[random.Random], Any]
"""Draws one value from the random generator that it is given."""


def grid(axes: Mapping[str, Iterable]) -> list[Overrides]:
    """Every combination of the values of all keys; the last key varies fastest."""
    axes = {key: _values(f"grid: {key}", values) for key, values in axes.items()}
    return [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]


def zip_(axes: Mapping[str, Iterable]) -> list[Overrides]:
    """The first value of every key, then the second …: keys that move together."""
    axes = {key: _values(f"zip_: {key}", values) for key, values in axes.items()}
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
    """n random draws. An axis is a distribution below, or a constant that every draw keeps.

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


def uniform(low: float, high: float) -> Distribution:
    """A number between low and high."""
    _check_range("uniform", low, high)
    return lambda generator: generator.uniform(low, high)


def log_uniform(low: float, high: float) -> Distribution:
    """A number between low and high whose logarithm is uniform: for rates and scales."""
    _check_range("log_uniform", low, high)
    if low <= 0:
        raise ValueError(f"log_uniform: low={low} must be above 0")
    # exp(log(x)) may leave the range by one rounding.
    return lambda generator: min(
        max(math.exp(generator.uniform(math.log(low), math.log(high))), low), high
    )


def integers(low: int, high: int) -> Distribution:
    """A whole number from low to high, both included."""
    _check_range("integers", low, high)
    if not (isinstance(low, Integral) and isinstance(high, Integral)):
        raise ValueError(f"integers: low={low}, high={high} must be whole numbers")
    low, high = int(low), int(high)
    return lambda generator: generator.randint(low, high)


def choice(values: Iterable) -> Distribution:
    """One of the values."""
    listed = _values("choice", values)
    return lambda generator: generator.choice(listed)


def _values(what: str, values: Iterable) -> list:
    """The values as a list; ValueError for text, for a set, which has no order, and for none."""
    ordered = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | Set)
    listed = list(values) if ordered else []
    if not listed:
        raise ValueError(f"{what} needs a list of at least one value, got {values!r}")
    return listed


def _check_range(name: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name}: low={low} must be below high={high}, both finite")
