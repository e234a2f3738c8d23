"""Independent random draws: `configs.space.sample`."""

from collections.abc import Sequence

from configs import space
from configs.space import Overrides, Search
from launch.search import design
from launch.search.asked import Asked

SEQUENTIAL = False
ENDS = False


def ask(search: Search, asked: Sequence[Asked]) -> list[Overrides]:
    """The draws after those that were asked for; more trials add draws at the end."""
    drawn = space.sample(search.axes, design.wanted(search, asked), search.seed)
    return design.rest(search, drawn, asked)
