"""Tokens per second of rollouts and of updates, measured apart from each other."""

from collections.abc import Mapping
from typing import Any

PARTS = ("rollout", "update")
"""Rollouts count the tokens of the responses that they draw, updates those of the rows that they
train on, padding included. Each gives the column PART_tokens_per_second."""


class Throughput:
    """The tokens and seconds of each part, since the run began and since its last row of metrics.
    Seconds of compilation do not count."""

    def __init__(self, known: Mapping[str, list[float]] | None = None):
        """`known` is what `whole` was when the run was saved."""
        self.whole = {part: list((known or {}).get(part, (0.0, 0.0))) for part in PARTS}
        self._row = {part: [0.0, 0.0] for part in PARTS}

    def add(self, part: str, tokens: float, seconds: float) -> None:
        for sums in (self.whole[part], self._row[part]):
            sums[0] += tokens
            sums[1] += seconds

    def columns(self) -> dict[str, float]:
        """The rates of the whole run, in tokens/s; {} for a run without rollouts."""
        return _rates(self.whole)

    def new_columns(self) -> dict[str, float]:
        """The rates since the last call."""
        found, self._row = _rates(self._row), {part: [0.0, 0.0] for part in PARTS}
        return found


def _rates(sums: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{part}_tokens_per_second": round(tokens / seconds, 1)
        for part, (tokens, seconds) in sums.items()
        if seconds > 0
    }
