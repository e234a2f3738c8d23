"""The training and validation curves of trials, from metrics.jsonl, thinned for a page."""

import contextlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling.ranking.trials import Trial

FEWEST, MOST, ALTOGETHER = 40, 160, 200_000  # points of a curve; of all curves together
DIGITS = 5  # significant digits of a loss, of which a curve on a screen shows three

Pairs = list[tuple[float, float]]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl that another process may be writing; [] without the file. Lines
    that are no JSON objects, as an interrupted write leaves them, are left out."""
    rows = []
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError:
        return rows
    for line in lines:
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and number(row.get("step")) is not None:
                rows.append(row)
    return rows


def loss_curves(trial: Trial, metric: str, most: int) -> dict[str, Any]:
    """The curves of one trial, {} if it has none.

    per_step: tokens of a step (None: unknown). train, evaluated: {"step": [n], "value": [n],
    "seconds": [n]}; a value that is not finite is None, which is a gap. Each holds at most
    about `most` points: the lowest and the highest of each of `most` / 2 stretches.
    """
    rows = read_rows(trial.folder / "metrics.jsonl")
    evaluated = "eval_loss" if metric == "loss" else metric
    found: dict[str, Any] = {}
    seconds, latest = [], 0.0
    for row in rows:
        latest = number(row.get("seconds")) or latest
        seconds.append(latest)
    for name, column in (("train", "loss"), ("evaluated", evaluated)):
        places = [i for i, row in enumerate(rows) if column in row]
        kept = thinned([number(rows[i][column]) for i in places], most)
        if kept:
            at = [places[i] for i in kept]
            found[name] = {
                "step": [rows[i]["step"] for i in at],
                "value": [rounded(number(rows[i][column])) for i in at],
                "seconds": [round(seconds[i], 1) for i in at],
            }
    if found:
        counted = [r["tokens"] / r["step"] for r in rows if number(r.get("tokens")) and r["step"]]
        found["per_step"] = counted[-1] if counted else None
    return found


def most_points(trials: Sequence[Trial]) -> int:
    """Points of each curve, fewer the more trials there are."""
    return max(FEWEST, min(MOST, ALTOGETHER // max(len(trials), 1)))


def thinned(values: Sequence[float | None], most: int) -> list[int]:
    """The places of at most about `most` of n values, in order: the first, the last, and the lowest
    and highest of equal stretches, so that a spike stays."""
    if len(values) <= most:
        return list(range(len(values)))
    kept, stretches = {0, len(values) - 1}, max(most // 2, 1)
    for i in range(stretches):
        ends = (i * len(values) // stretches, (i + 1) * len(values) // stretches)
        known = [k for k in range(*ends) if values[k] is not None]
        known = known or [ends[0]]
        kept |= {min(known, key=values.__getitem__), max(known, key=values.__getitem__)}
    return sorted(kept)


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if known and math.isfinite(value) else None


def rounded(value: float | None) -> float | None:
    """A number with DIGITS significant digits."""
    return None if value is None else float(f"{value:.{DIGITS}g}")
