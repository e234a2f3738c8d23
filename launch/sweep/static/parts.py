"""A static share of a sweep's trials, `--part=3/16`, for machines that nothing else coordinates.

Every part plans the same trials and shares them out by the same rule, so the parts need not talk.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from launch.sweep.expand import Plan, Planned


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`, counted from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_part(text: str) -> Part:
    """The part that --part=`text` names; ValueError for anything but 'I/N' with 1 ≤ I ≤ N."""
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text.strip())
    part = Part(*map(int, match.groups())) if match else None
    if part is None or part.number > part.of:
        raise ValueError(f"part={text} is no part of a sweep; write 1/16, 2/16, … 16/16")
    return part


def share_out(trials: Iterable[Planned], parts: int) -> list[list[Planned]]:
    """The fitted trials in `parts` lists of about equal cost. A trunk and its branches stay
    together.

    The costliest unit goes to the part with the least cost so far (longest processing time first,
    Graham 1969). The largest total is below the mean plus the cost of one unit. Held-out trials are
    in no part: they are predicted from all others.
    """
    units: dict[str, list[Planned]] = {}
    for planned in trials:
        if not planned.holdout:
            units.setdefault(planned.trunk or planned.id, []).append(planned)
    totals = {key: sum(planned.cost for planned in unit) for key, unit in units.items()}
    loads, shares = [0.0] * parts, [[] for _ in range(parts)]
    for key in sorted(units, key=lambda key: (-totals[key], key)):
        lightest = min(range(parts), key=lambda part: (loads[part], len(shares[part]), part))
        loads[lightest] += totals[key]
        shares[lightest] += units[key]
    return shares


def part_of(plan: Plan, part: Part) -> Plan:
    """The plan with the trials of one part only."""
    ids = {planned.id for planned in share_out(plan.trials, part.of)[part.number - 1]}
    kept = tuple(planned for planned in plan.trials if planned.id in ids)
    return replace(plan, trials=kept)
