"""What cleaning counts: documents and bytes by rule, examples, histograms, faults of the input.

Each unit of work has a Tally of its own; their sum, in the order of the units, does not depend on
who worked on which.
"""

import math
import zlib
from collections import Counter
from typing import Any

EXAMPLES = 3  # kept for each rule
LONGEST_EXAMPLE = 300  # characters
MOST_FAULTS = 20  # named in cleaning.json; the others are counted


class Tally:
    """Counts of some documents. `about` is all of it as JSON."""

    def __init__(self, about: dict[str, Any] | None = None):
        self.about = about or {
            "read": {"documents": 0, "bytes": 0},
            "written": {"documents": 0, "bytes": 0},
            "rules": {},
            "languages": {},
            "lengths": {"read": {}, "written": {}},
            "faults": {"files": 0, "rows": 0, "named": []},
        }

    def seen(self, side: str, text: str, n_bytes: int) -> None:
        """Counts a document that was "read" or "written"."""
        counts = self.about[side]
        counts["documents"] += 1
        counts["bytes"] += n_bytes
        step = str(max(0, math.ceil(math.log2(max(1, len(text))))))  # at most 2^step characters
        lengths = self.about["lengths"][side]
        lengths[step] = lengths.get(step, 0) + 1

    def language(self, code: str) -> None:
        """Counts the language of a document."""
        self.about["languages"][code] = self.about["languages"].get(code, 0) + 1

    def removed(self, rule: str, where: str, text: str, value: float | str | None = None) -> None:
        """Counts a document that a rule removes. `value` is what the rule measured."""
        counts = self._of(rule)
        counts["documents"] += 1
        counts["bytes"] += len(text.encode())
        self._example(rule, where, text, value)

    def changed(self, rule: str, where: str, times: int, example: str, n_bytes: int = 0) -> None:
        """Counts a document that a rule changes in `times` places, and the `n_bytes` it removes."""
        counts = self._of(rule)
        counts["changed"] += 1
        counts["times"] += times
        counts["bytes"] += n_bytes
        self._example(rule, where, example, None)

    def fault(self, kind: str, where: str, why: str) -> None:
        """Counts a file ("files") that is damaged, or a row ("rows") that cannot be read."""
        faults = self.about["faults"]
        faults[kind] += 1
        if len(faults["named"]) < MOST_FAULTS:
            faults["named"].append({"where": where, "why": why})

    def _of(self, rule: str) -> dict[str, Any]:
        empty = {"documents": 0, "bytes": 0, "changed": 0, "times": 0, "examples": []}
        return self.about["rules"].setdefault(rule, empty)

    def _example(self, rule: str, where: str, text: str, value: float | str | None) -> None:
        """Keeps the examples whose places have the smallest checksums: a sample of the rule's
        documents that does not depend on the order."""
        kept, rank = self._of(rule)["examples"], zlib.crc32(where.encode())
        if len(kept) == EXAMPLES and rank >= kept[-1]["rank"]:
            return
        short = text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 1] + "…"
        kept.append({"rank": rank, "where": where, "text": short, "value": value})
        kept.sort(key=lambda one: (one["rank"], one["where"]))
        del kept[EXAMPLES:]

    def add(self, other: dict[str, Any]) -> None:
        """Adds the `about` of another Tally."""
        mine = self.about
        for side in ("read", "written"):
            for key, value in other[side].items():
                mine[side][key] += value
            mine["lengths"][side] = _sum(mine["lengths"][side], other["lengths"][side])
        mine["languages"] = _sum(mine["languages"], other["languages"])
        for rule, counts in other["rules"].items():
            ours = self._of(rule)
            for key in ("documents", "bytes", "changed", "times"):
                ours[key] += counts[key]
            kept = [*ours["examples"], *counts["examples"]]
            ours["examples"] = sorted(kept, key=lambda one: (one["rank"], one["where"]))[:EXAMPLES]
        for kind in ("files", "rows"):
            mine["faults"][kind] += other["faults"][kind]
        mine["faults"]["named"] = [*mine["faults"]["named"], *other["faults"]["named"]][
            :MOST_FAULTS
        ]


def _sum(left: dict[str, int], right: dict[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(left) + Counter(right)).items()))
