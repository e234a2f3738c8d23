"""The budget of a whole search, in FLOPs, tokens or hours: what its trials cost."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch import amounts
from launch.sweep.expand import START_SECONDS, Planned
from scaling.report.number_text import parse_amount


@dataclass(frozen=True)
class Budget:
    """So many FLOPs, as a trial's train.flops_convention counts them, tokens, or hours of training.

    Hours are those of all workers together: two trials at a time spend two in an hour.
    """

    limit: float
    unit: str

    def cost(self, planned: Planned, rate: float) -> float:
        """What a trial will cost, where a worker makes `rate` model FLOP/s."""
        if self.unit == "tokens":
            return planned.about["tokens"]
        if self.unit == "flops":
            return planned.about["flops"][planned.config.train.flops_convention]
        return (START_SECONDS + planned.flops / rate) / 3600

    def spent(self, planned: Planned, result: Mapping[str, Any]) -> float:
        """What a trial has cost by its result.json; one that ended early cost only its part."""
        if self.unit == "hours":
            return (result["seconds"] + result.get("compile_seconds", 0.0)) / 3600
        whole = self.cost(planned, 1.0)
        if result["status"] == "done" or "tokens_per_second" not in result:
            return whole
        trained = result["tokens_per_second"] * result["seconds"]
        return whole * min(1.0, trained / planned.about["tokens"])

    def number(self, amount: float) -> str:
        """An amount without its unit."""
        return amounts.flops(amount) if self.unit == "flops" else amounts.amount(amount)

    def text(self, amount: float) -> str:
        """An amount with its unit."""
        return f"{self.number(amount)} {self.unit}"


UNITS = {"flop": "flops", "token": "tokens", "hour": "hours"}


def parse(text: str) -> Budget | None:
    """The budget '1e15 flops', '2e8 tokens' or '3 hours'; None for ''. ValueError otherwise."""
    if not text:
        return None
    match = re.fullmatch(r"\s*(\S+)\s+(flop|token|hour)s?\s*", str(text), re.IGNORECASE)
    try:
        limit = parse_amount(match[1]) if match else 0.0
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise ValueError(
            f'search.budget={text!r} is not a budget; write "1e15 flops", "2e8 tokens" or "3 hours"'
        )
    return Budget(limit, UNITS[match[2].lower()])
