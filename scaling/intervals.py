"""Values with their intervals as law.json holds them (value, lo, hi), and how far they reach."""

from collections.abc import Callable
from typing import Any

import numpy as np

from scaling.settings import LEVEL
from scaling.table import Points


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


FAR = 10.0  # times the largest fitted compute: beyond it an interval from the fit is too narrow


def extrapolation(fitted: Points, flops: float) -> float:
    """How many times the largest fitted compute `flops` is; nan where compute is unknown."""
    return flops / float(fitted.flops.max())


def interval_text(v: dict[str, Any], text: Callable[[float], str]) -> str:
    """'1.2M [1.1M, 1.4M]', with `text` writing each number; a dash where there is no value."""
    if v["value"] is None:
        return "—"
    span = "" if v["lo"] is None else f" [{text(v['lo'])}, {text(v['hi'])}]"
    return text(v["value"]) + span


def nothing(names: tuple[str, ...], reason: str) -> dict[str, Any]:
    """A part that the data cannot support: nulls, and why."""
    return {**{name: number(None) for name in names}, "reason": reason}
