"""The ladder that a pilot proposes: real shapes around the expected optimum of every budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from launch.pilot import proposal
from launch.pilot.designs import designs
from launch.pilot.proposal import Shape
from scaling.design.pilot_trials import UNCERTAIN, Pilot
from scaling.design.precision import Design, compared


@dataclass(frozen=True)
class Ladder:
    """What a ladder is chosen from and asked for: shapes, budgets and the held-out budget in FLOPs,
    sizes of each budget (more where little is known of N*), span and seeds; and the pilot's
    findings that place it."""

    found: Pilot
    shapes: Sequence[Shape]
    convention: str  # of FLOPs
    budgets: Sequence[float]
    held_out: float
    sizes: int
    span: float
    seeds: Sequence[int]

    @property
    def largest(self) -> Shape:
        """The shape of the held-out run: the one at its expected optimum."""
        return proposal.nearest_to(self.shapes, float(np.exp(self.found.line.at(self.held_out)[0])))

    def chosen(self, budget: float, more: int = 0, wider: float = 1.0) -> list[Shape]:
        """The shapes of a budget: `more` sizes than asked for, the span `wider` times as large."""
        log_n, sd = self.found.line.at(budget)
        enough = proposal.enough(proposal.half_range(self.span, sd), self.sizes)
        half = proposal.half_range(wider * self.span, sd)
        return proposal.bracketing(self.shapes, log_n, half, enough + more)

    def design(self, budgets: Sequence[float], sizes: int, wider: float) -> Design:
        """The runs of a variation of this ladder, one seed each."""
        rows = [
            (budget, shape.params, shape.tokens(budget, self.convention))
            for budget in budgets
            for shape in self.chosen(budget, sizes - self.sizes, wider)
        ]
        last = self.largest
        held_out = (last.params, last.tokens(self.held_out, self.convention))
        return Design(*np.array(rows).T, held_out=held_out)

    def precision(self, noise: float | None, seed: int) -> list[dict[str, Any]]:
        """The expected precision of this ladder and its variations; `noise` of a run's log-loss,
        None: the pilot's."""
        wanted = designs(self.design, self.budgets, self.sizes, len(self.seeds))
        noise = self.found.noise if noise is None else noise
        return compared(self.found.laws, noise, self.found.dof, wanted, seed)

    def trials(self) -> list[dict[str, Any]]:
        """The trials of its sweep, the held-out one last."""
        rate, last = self.found.rule.rate, self.largest
        rows = [
            proposal.trial(budget, shape, rate(shape.width), False, seed)
            for budget in self.budgets
            for shape in self.chosen(budget)
            for seed in self.seeds
        ]
        return [*rows, proposal.trial(self.held_out, last, rate(last.width), True)]

    def described(self) -> dict[str, Any]:
        """The budgets and their sizes, as pilot.json has them."""
        return {
            "ladder": [self._rung(budget, self.chosen(budget)) for budget in self.budgets],
            "held_out": self._rung(self.held_out, [self.largest]),
        }

    def _rung(self, budget: float, shapes: Sequence[Shape]) -> dict[str, Any]:
        log_n, sd = self.found.line.at(budget)
        low, high = (log_n + sign * UNCERTAIN * sd for sign in (-1, 1))
        best = {name: float(np.exp(x)) for name, x in (("value", log_n), ("lo", low), ("hi", high))}
        rate = self.found.rule.rate
        rows = [
            {"shape": shape.text, "params": shape.params, "rate": rate(shape.width)}
            for shape in shapes
        ]
        return {"flops": budget, "params": best, "sizes": rows}
