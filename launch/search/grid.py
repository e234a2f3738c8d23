"""Every combination of values; a range is cut into as many levels as the trials allow."""

import itertools
import math
from collections.abc import Sequence

from configs import space
from configs.distributions import Choice
from configs.space import Overrides, Search
from launch.search import design
from launch.search.asked import Asked

SEQUENTIAL = False
ENDS = True


def ask(search: Search, asked: Sequence[Asked]) -> list[Overrides]:
    """All combinations, the last key fastest. Ranges have the same number of levels, from end to
    end: the most with which there are at most `trials` combinations. ValueError if that is not even
    two."""
    ranges = [k for k, axis in search.axes.items() if callable(axis) and type(axis) is not Choice]
    smallest = _count(search, 2)
    if ranges and not search.trials:
        raise ValueError(
            f"search.axes: {ranges[0]} is a range, and a grid has no number of trials to cut it "
            "into; list its values, or add --trials=25"
        )
    if search.trials and smallest > search.trials:
        raise ValueError(
            f"search.trials={search.trials} is below the {smallest} combinations of the "
            "smallest grid; raise --trials, or use --search=sobol"
        )
    counts = range(2, search.trials + 1 if ranges else 3)
    n = list(
        itertools.takewhile(lambda n: _count(search, n) <= (search.trials or smallest), counts)
    )
    return design.rest(search, space.grid(_levels(search, n[-1])), asked)


def _levels(search: Search, n: int) -> dict[str, list]:
    """The values of every key, with n levels of each range."""
    axes = search.axes.items()
    return {key: axis.levels(n) if callable(axis) else [axis] for key, axis in axes}


def _count(search: Search, n: int) -> int:
    """The number of combinations with n levels of each range."""
    return math.prod(map(len, _levels(search, n).values()))
