"""What a key of a random sweep or a search may be: ranges and lists of values.

A distribution draws from a random generator, and maps a number u with 0 <= u < 1 to the value below
which a share u of its draws lie, so that any design of points in the unit cube becomes trials.
"""

import math
import random
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol


class Distribution(Protocol):
    """What every axis below provides."""

    def __call__(self, generator: random.Random) -> Any:
        """One value drawn with the generator."""

    def at(self, u: float) -> Any:
        """The quantile u, 0 <= u < 1."""

    def levels(self, n: int) -> list:
        """About n values that are evenly spaced on its own scale; all of a list."""


@dataclass(frozen=True)
class Uniform:
    """A number between low and high."""

    low: float
    high: float

    def __post_init__(self):
        _check_range("uniform", self.low, self.high)

    def __call__(self, generator: random.Random) -> float:
        return generator.uniform(self.low, self.high)

    def at(self, u: float) -> float:
        return self.low + u * (self.high - self.low)

    def levels(self, n: int) -> list[float]:
        return [self.at(u) for u in _even(n)]


@dataclass(frozen=True)
class LogUniform:
    """A number between low and high whose logarithm is uniform: for rates and scales."""

    low: float
    high: float

    def __post_init__(self):
        _check_range("log_uniform", self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"log_uniform: low={self.low} must be above 0")

    def __call__(self, generator: random.Random) -> float:
        return self._exp(generator.uniform(math.log(self.low), math.log(self.high)))

    def at(self, u: float) -> float:
        return self._exp((1 - u) * math.log(self.low) + u * math.log(self.high))

    def levels(self, n: int) -> list[float]:
        return [self.at(u) for u in _even(n)]

    def _exp(self, logarithm: float) -> float:
        # exp(log(x)) may leave the range by one rounding.
        return min(max(math.exp(logarithm), self.low), self.high)


@dataclass(frozen=True)
class Integers:
    """A whole number from low to high, both included."""

    low: int
    high: int

    def __post_init__(self):
        _check_range("integers", self.low, self.high)
        if not (isinstance(self.low, Integral) and isinstance(self.high, Integral)):
            raise ValueError(f"integers: low={self.low}, high={self.high} must be whole numbers")
        object.__setattr__(self, "low", int(self.low))
        object.__setattr__(self, "high", int(self.high))

    def __call__(self, generator: random.Random) -> int:
        return generator.randint(self.low, self.high)

    def at(self, u: float) -> int:
        return min(self.low + math.floor(u * (self.high - self.low + 1)), self.high)

    def levels(self, n: int) -> list[int]:
        span = self.high - self.low
        return sorted({self.low + round(u * span) for u in _even(min(n, span + 1))})


@dataclass(frozen=True)
class Choice:
    """One of the values."""

    values: tuple

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(in_order("choice", self.values)))

    def __call__(self, generator: random.Random) -> Any:
        return generator.choice(self.values)

    def at(self, u: float) -> Any:
        return self.values[min(math.floor(u * len(self.values)), len(self.values) - 1)]

    def levels(self, n: int) -> list:
        return list(self.values)


def in_order(what: str, values: Iterable) -> list:
    """The values as a list; ValueError for text, for a set, which has no order, and for none."""
    ordered = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | Set)
    listed = list(values) if ordered else []
    if not listed:
        raise ValueError(f"{what} needs a list of at least one value, got {values!r}")
    return listed


def _even(n: int) -> list[float]:
    """n numbers from 0 to 1, both included; the middle for n = 1."""
    return [i / (n - 1) for i in range(n)] if n > 1 else [0.5]


def _check_range(name: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{name}: low={low} must be below high={high}, both finite")
