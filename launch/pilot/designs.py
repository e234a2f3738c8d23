"""Ladders that are compared by their expected precision: budgets, sizes, span and seeds."""

from collections.abc import Callable, Sequence
from typing import Any

from scaling.report.number_text import parse_amount

FEWEST_BUDGETS = 3
HELD_OUT = 3.0  # times the largest budget


def numbers(name: str, text: str, fewest: int = 1) -> list[float]:
    """The flag `name` with the value '3e11,9e11' as rising positive numbers; ValueError if it holds
    anything else, or fewer than `fewest`."""
    try:
        found = sorted({parse_amount(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"{name}={text} is not a list of numbers; write 1e12,3e12,1e13") from None
    if not all(0 < value < float("inf") for value in found):
        raise ValueError(f"{name}={text} must be positive and finite")
    if len(found) < fewest:
        raise ValueError(f"{name}={text} has {len(found)} values; give {fewest} or more")
    return found


def held_out_budget(asked: float | None, budgets: Sequence[float]) -> float:
    """The FLOPs of the held-out run, HELD_OUT times the largest budget if not asked for. ValueError
    where it is not above the budgets that are fitted."""
    if asked is not None and not asked > budgets[-1]:
        raise ValueError(
            f"held_out={asked:g} is not above the largest budget, {budgets[-1]:g}; use "
            f"{HELD_OUT * budgets[-1]:g}"
        )
    return asked or HELD_OUT * budgets[-1]


def variations(
    budgets: Sequence[float], sizes: int
) -> dict[str, tuple[list[float], int, float, int]]:
    """Alternatives to a ladder: name -> budgets, sizes, factor on the span, factor on the seeds."""
    ratio = (budgets[-1] / budgets[0]) ** (1 / (len(budgets) - 1))
    same = list(budgets)
    return {
        "as proposed": (same, sizes, 1.0, 1),
        "two more sizes": (same, sizes + 2, 1.0, 1),
        "twice the span": (same, sizes, 2.0, 1),
        "twice the seeds": (same, sizes, 1.0, 2),
        "a budget below": ([budgets[0] / ratio, *same], sizes, 1.0, 1),
        "a budget above": ([*same, budgets[-1] * ratio], sizes, 1.0, 1),
    }


def designs(
    make: Callable[[list[float], int, float], Any],
    budgets: Sequence[float],
    sizes: int,
    seeds: int,
) -> dict[str, Any]:
    """`make(budgets, sizes, wider)`, a `scaling.design.precision.Design`, of every variation.

    Variations for which there are no shapes (ValueError) are left out, except the proposal itself.
    """
    found = {}
    for name, (own, count, wider, times) in variations(budgets, sizes).items():
        try:
            found[name] = make(own, count, wider).repeated(seeds * times)
        except ValueError:
            if name == "as proposed":
                raise
    return found
