"""Computes the metrics of an objective, with standard errors, from sums over rows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Rows = Mapping[str, np.ndarray]
"""Sums for each evaluated row, by name: arrays [E, B] for E batches."""


@dataclass(frozen=True)
class Metric:
    """The ratio of two sums over rows, Σ `of` / Σ `per` / `divisor`."""

    unit: str
    of: str
    per: str
    better: str = "lower"  # or "higher"
    divisor: float = 1.0
    # The least possible value. A training loss with a floor of 0 has diverged if it is above
    # `train.max_loss_ratio` times its median; one without a floor, if it is not finite.
    floor: float | None = None

    def __call__(self, rows: Rows) -> tuple[float, float | None] | None:
        """(value, standard error) as `ratio` gives them. Returns None if `rows` lacks a sum that
        the metric needs, or has no weight."""
        if self.of not in rows or self.per not in rows:
            return None
        of, per = (np.asarray(rows[name], np.float64).ravel() for name in (self.of, self.per))
        of, per = of[per > 0], per[per > 0]
        return ratio(of / self.divisor, per) if len(per) else None


def ratio(of_R: np.ndarray, per_R: np.ndarray) -> tuple[float, float | None]:
    """(Σ of / Σ per, its standard error), with rows as the independent units. The error is None for
    a single row. Rows may have different denominators (Cochran 1977, eq. 6.13)."""
    value, n = of_R.sum() / per_R.sum(), len(per_R)
    if n < 2:
        return float(value), None
    variance = np.square(of_R - value * per_R).sum() / (n - 1) / n
    return float(value), math.sqrt(variance) / float(per_R.mean())


def measure(metrics: Mapping[str, Metric], rows: Rows) -> dict[str, tuple[float, float | None]]:
    """(value, standard error) of each metric whose sums are in `rows`."""
    values = {name: metric(rows) for name, metric in metrics.items()}
    return {name: value for name, value in values.items() if value is not None}
