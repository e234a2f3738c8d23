"""This file refuses points that cannot be right, in one line that says where and what to do."""

from collections.abc import Iterable

import numpy as np


class Unsupported(ValueError):
    """The points are sound but cannot carry what was asked; the message says what would."""


def listed(where: list[str], index: Iterable[int], at_most: int = 5) -> str:
    """'row 2, row 7 and 3 more'."""
    index = list(index)
    text = ", ".join(where[i] for i in index[:at_most])
    return text + (f" and {len(index) - at_most} more" if len(index) > at_most else "")


def positive(values: np.ndarray, name: str, where: list[str], source: str) -> None:
    """Refuses zeros, negatives, infinities and gaps, naming their rows."""
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if len(wrong):
        raise ValueError(
            f"{source}: {name} must be positive and finite, but is {values[wrong[0]]:g} in "
            f"{listed(where, wrong)}; correct or remove these rows"
        )


def wrong_units(
    params: np.ndarray, tokens: np.ndarray, flops: np.ndarray, loss: np.ndarray, source: str
) -> None:
    """Refuses what only a wrong unit explains, and says which."""
    for name, values, floor in (("params", params, 100.0), ("tokens", tokens, 1e4)):
        if np.median(values) < floor:
            raise ValueError(
                f"{source}: {name} has a median of {np.median(values):g}: that looks like "
                "millions or billions; "
                f"write plain counts such as 7e9"
            )
    ratio = np.median(flops / (6 * params * tokens))
    if not 0.05 < ratio < 20:
        raise ValueError(
            f"{source}: flops is {ratio:.3g} times 6·params·tokens in the median row; it must be "
            "the training FLOPs "
            f"of the whole run (not per token, not PFLOP-days): rescale it, or leave the column out"
        )
    if np.median(loss) > 13:
        raise ValueError(
            f"{source}: loss has a median of {np.median(loss):g}, more than guessing among "
            "400,000 tokens: that looks "
            f"like perplexity; write its natural logarithm, nats per token"
        )


def duplicates(
    run: np.ndarray | None, columns: list[np.ndarray], where: list[str], source: str
) -> None:
    """Refuses a run that is listed twice: the same name (if rows have one) and the same columns."""
    keys = list(zip(*([] if run is None else [run]), *columns, strict=True))
    first: dict[tuple, int] = {}
    for i, key in enumerate(keys):
        if key in first:
            name = "the same run" if run is None else f"run {run[i]}"
            raise ValueError(
                f"{source}: {name} is listed twice, in {where[first[key]]} and {where[i]}; "
                "remove one (several evaluations of one run need different tokens)"
            )
        first[key] = i
