"""This file writes values with their intervals as law.json holds them: value, lo, hi."""

from typing import Any

import numpy as np

from scaling.settings import LEVEL


def number(value: float | None, draws: np.ndarray | None = None) -> dict[str, float | None]:
    """A value with its percentile interval; what is not finite becomes null."""
    low = high = None
    if draws is not None and len(draws):
        with np.errstate(invalid="ignore"):  # draws of a hopeless fit may be infinite
            low, high = np.percentile(draws, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return {"value": finite(value), "lo": finite(low), "hi": finite(high)}


def finite(value: Any) -> float | None:
    """A float for JSON, null where there is none."""
    return float(value) if value is not None and np.isfinite(value) else None


def standard_error(draws: np.ndarray) -> float | None:
    """Standard deviation of bootstrap draws; null where a draw of a hopeless fit is infinite."""
    return finite(np.std(draws, ddof=1)) if np.isfinite(draws).all() else None


def nothing(names: tuple[str, ...], reason: str) -> dict[str, Any]:
    """A part that the data cannot support: nulls, and why."""
    return {**{name: number(None) for name in names}, "reason": reason}
