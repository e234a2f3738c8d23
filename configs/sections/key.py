"""A configuration key with its bounds."""

from typing import Any, NamedTuple


class Key(NamedTuple):
    """A default with its bounds: `least` ≤ value < `below`."""

    default: Any
    least: float | None = None
    below: float | None = None
