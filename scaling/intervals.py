"""Values with intervals as law.json stores them (value, lo, hi), and extrapolation factors."""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np

from scaling.settings import LEVEL
from scaling.table import Points


def number(value: float | None, draws: np.ndarray | None = None) -> dict[str, float | None]:
    """A value with its percentile interval; numbers that are not finite become null."""
    low = high = None
    if draws is not None and len(draws):
        with np.errstate(invalid="ignore"):  # draws of a degenerate fit may be infinite
            low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return {"value": finite(value), "lo": finite(low), "hi": finite(high)}


def finite(value: Any) -> float | None:
    """A float for JSON; null if the value is missing or not finite."""
    return float(value) if value is not None and np.isfinite(value) else None


def standard_error(draws: np.ndarray) -> float | None:
    """Standard deviation of bootstrap draws; null if any draw is infinite."""
    return finite(np.std(draws, ddof=1)) if np.isfinite(draws).all() else None


def wilson(share: float, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The interval (low, high) of a share of `count` independent cases (Wilson 1927)."""
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    half = z / (1 + z * z / count) * spread
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


FAR = 10.0  # multiple of the largest fitted compute beyond which the fit's intervals are too narrow


def extrapolation(fitted: Points, flops: float) -> float:
    """`flops` over the largest fitted compute; nan if compute is unknown."""
    return flops / float(fitted.flops.max())


def interval_text(v: dict[str, Any], text: Callable[[float], str]) -> str:
    """'1.2M [1.1M, 1.4M]', each number formatted by `text`; a dash if there is no value."""
    if v["value"] is None:
        return "—"
    span = "" if v["lo"] is None else f" [{text(v['lo'])}, {text(v['hi'])}]"
    return text(v["value"]) + span


def nothing(names: tuple[str, ...], reason: str) -> dict[str, Any]:
    """A part of law.json that the data do not support: a null per name, and the reason."""
    return {**{name: number(None) for name in names}, "reason": reason}
