"""Parses durations such as "300 steps", "2e7 tokens", "2 epochs", "5 %" or "1e13 flops"."""

import math
import re
from dataclasses import dataclass

UNITS = ("steps", "tokens", "examples", "epochs", "%", "flops")


@dataclass(frozen=True)
class Units:
    """The size of one step in each unit, and the length of the run in steps (0 if unknown)."""

    tokens: float
    examples: float
    epochs: float
    flops: float
    total_steps: int = 0


def parse(key: str, text: str) -> tuple[float, str]:
    """(number, unit) of a duration; ValueError naming the key if the text is invalid."""
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([a-zA-Z%]+)\s*", str(text))
    unit = match and match[2].lower()
    unit = unit if unit in UNITS else f"{unit}s"  # "1 step", "1 epoch"
    try:
        if unit in UNITS and math.isfinite(float(match[1])):
            return float(match[1]), unit
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{key}={text!r} is not a duration; write a number and one of {', '.join(UNITS)}, "
        'such as "2e7 tokens"'
    )


def to_steps(key: str, text: str, units: Units) -> int:
    """The duration in whole steps, rounded to the nearest; durations of 0 give 0."""
    number, unit = parse(key, text)
    if unit == "steps":
        return round(number)
    if unit == "%":
        if not units.total_steps:
            raise ValueError(
                f"{key}={text!r} is a percentage of itself; give it in {', '.join(UNITS[:4])}"
            )
        return round(number / 100 * units.total_steps)
    per_step = getattr(units, unit)
    if not per_step:
        raise ValueError(f"{key}={text!r}: this run has no {unit}; give it in {UNITS[0]}")
    return round(number / per_step)


def steps(text: str) -> int:
    """The number in a resolved duration, which is always in steps."""
    return int(parse("duration", text)[0])
