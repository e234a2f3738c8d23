"""Curves in one line of a terminal: ▇▄▃▂▁."""

import itertools
import math
from collections.abc import Sequence

LEVELS, PLAIN_LEVELS = "▁▂▃▄▅▆▇█", "_.-=*#"  # the second for terminals without block characters


def sparkline(values: Sequence[float], width: int = 12, encoding: str = "utf-8") -> str:
    """The values, evenly spaced, as at most `width` characters, each the mean of its share. Heights
    are logarithmic if all values are positive. Values that are not finite are left out."""
    finite = [float(value) for value in values if math.isfinite(value)]
    if not finite:
        return ""
    width = min(width, len(finite))
    edges = [number * len(finite) // width for number in range(width + 1)]
    shares = [finite[a:b] for a, b in itertools.pairwise(edges)]
    means = [sum(share) / len(share) for share in shares]
    heights = [math.log(mean) for mean in means] if min(means) > 0 else means
    levels = LEVELS if encoding.lower().startswith("utf") else PLAIN_LEVELS
    low, span = min(heights), max(heights) - min(heights)
    places = [(height - low) / span if span else 0.0 for height in heights]
    return "".join(levels[min(int(place * len(levels)), len(levels) - 1)] for place in places)
