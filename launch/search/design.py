"""Trials from a design: all points are known before the first trial ends."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from configs.distributions import LogUniform, Uniform
from configs.space import Overrides, Search
from launch.search.asked import Asked


def trials_at(axes: Mapping[str, Any], points_PK: np.ndarray) -> list[Overrides]:
    """One trial for each row of points in the unit cube; its columns are the axes that are
    distributions, the other axes are constants."""
    rows = [iter(row) for row in points_PK.tolist()]
    return [
        {k: axis.at(next(row)) if callable(axis) else axis for k, axis in axes.items()}
        for row in rows
    ]


def dimensions(axes: Mapping[str, Any]) -> int:
    """The number of axes that are distributions."""
    return sum(map(callable, axes.values()))


def wanted(search: Search, asked: Sequence[Asked]) -> int:
    """How many trials to have in all; where only the budget ends the search, one more."""
    return search.trials or len(asked) + 1


def legible(axes: Mapping[str, Any], overrides: Overrides) -> Overrides:
    """A trial whose numbers from ranges have four digits, which tables can show; they stay in the
    range."""
    return {key: _legible(axes[key], value) for key, value in overrides.items()}


def _legible(axis: Any, value: Any) -> Any:
    if not isinstance(axis, Uniform | LogUniform):
        return value
    return min(max(float(f"{value:.4g}"), axis.low), axis.high)


def rest(search: Search, trials: list[Overrides], asked: Sequence[Asked]) -> list[Overrides]:
    """The trials of a design that have not been asked for. ValueError if those that have been are
    not its first ones."""
    trials = [legible(search.axes, trial) for trial in trials]
    for before, now in zip(asked, trials, strict=False):
        if json.dumps(before.overrides) != json.dumps(now):
            raise ValueError(
                f"search.trials={search.trials}: {search.method} has other points for another "
                f"number of trials, and {len(asked)} were drawn for the former one; use the former "
                "--trials, or another folder"
            )
    return trials[len(asked) :]
