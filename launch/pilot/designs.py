"""Ladders that are compared by their expected precision: budgets, sizes, span and seeds."""

from collections.abc import Callable, Sequence
from typing import Any

from scaling.report.number_text import parse_amount

FEWEST_BUDGETS = 3
HELD_OUT = 3.0  # times the largest budget


def numbers(name: str, text: str, fewest: int = 1) -> list[float]:
    """The values of a flag such as --budgets=3e11,9e11, sorted. Raises ValueError unless they are
    positive numbers, at least `fewest` of them."""
    try:
        values = sorted({parse_amount(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"{name}={text} is not a list of numbers; write 1e12,3e12,1e13") from None
    if not all(0 < value < float("inf") for value in values):
        raise ValueError(f"{name}={text} must be positive and finite")
    if len(values) < fewest:
        raise ValueError(f"{name}={text} has {len(values)} values; give {fewest} or more")
    return values


def held_out_budget(asked: float | None, budgets: Sequence[float]) -> float:
    """The FLOPs of the held-out run: `asked`, or HELD_OUT times the largest budget if None. Raises
    ValueError unless it is above the largest budget."""
    if asked is not None and not asked > budgets[-1]:
        raise ValueError(
            f"held_out={asked:g} is not above the largest budget, {budgets[-1]:g}; use "
            f"{HELD_OUT * budgets[-1]:g}"
        )
    return asked or HELD_OUT * budgets[-1]


def variations(budgets: Sequence[float]) -> dict[str, tuple[list[float], int, float, int]]:
    """Alternatives to a ladder: name -> budgets, extra sizes, factor on the span, factor on the
    seeds."""
    ratio = (budgets[-1] / budgets[0]) ** (1 / (len(budgets) - 1))
    same = list(budgets)
    return {
        "as proposed": (same, 0, 1.0, 1),
        "two more sizes": (same, 2, 1.0, 1),
        "twice the span": (same, 0, 2.0, 1),
        "twice the seeds": (same, 0, 1.0, 2),
        "a budget below": ([budgets[0] / ratio, *same], 0, 1.0, 1),
        "a budget above": ([*same, budgets[-1] * ratio], 0, 1.0, 1),
    }


def designs(
    make: Callable[[list[float], int, float], Any], budgets: Sequence[float], seeds: int
) -> dict[str, Any]:
    """`make(budgets, extra_sizes, span_factor)`, a `scaling.design.precision.Design`, for every
    variation.

    Variations for which there are no shapes (ValueError) are left out, except the proposal itself.
    """
    made = {}
    for name, (flops, extra, span_factor, seeds_factor) in variations(budgets).items():
        try:
            made[name] = make(flops, extra, span_factor).repeated(seeds * seeds_factor)
        except ValueError:
            if name == "as proposed":
                raise
    return made
