"""The ladder that a pilot proposes: real shapes around the expected optimum of every budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from launch.pilot import proposal
from launch.pilot.designs import designs
from launch.pilot.proposal import Shape
from scaling.design.pilot_trials import Z90, Pilot
from scaling.design.precision import Design, expected_precision


@dataclass(frozen=True)
class Ladder:
    """A proposed ladder."""

    pilot: Pilot  # estimates N* at each budget, the learning rates and the noise
    shapes: Sequence[Shape]  # all that it can choose from
    convention: str  # counts the FLOPs of a shape: a key of model.transformer.count.FLOPS
    budgets: Sequence[float]  # FLOPs
    held_out: float  # FLOPs of the held-out run
    sizes: int  # smallest number of sizes per budget; more if N* is uncertain
    span: float  # sizes reach from N*/span to N* span, and further if N* is uncertain
    seeds: Sequence[int]

    @property
    def held_out_shape(self) -> Shape:
        """The shape closest to N* at the held-out budget."""
        log_n, _ = self.pilot.line.at(self.held_out)
        return proposal.nearest_shape(self.shapes, float(np.exp(log_n)))

    def shapes_at(self, budget: float, extra: int = 0, span_factor: float = 1.0) -> list[Shape]:
        """The shapes of a budget. A variation has `extra` more sizes or a `span_factor` times
        larger span."""
        log_n, sd = self.pilot.line.at(budget)
        sizes = proposal.n_sizes(proposal.half_log_span(self.span, sd), self.sizes)
        half = proposal.half_log_span(span_factor * self.span, sd)
        return proposal.shapes_around(self.shapes, log_n, half, sizes + extra)

    def design(self, budgets: Sequence[float], extra: int, span_factor: float) -> Design:
        """The runs of a variation of this ladder, one seed each."""
        rows = [
            (budget, shape.params, shape.tokens(budget, self.convention))
            for budget in budgets
            for shape in self.shapes_at(budget, extra, span_factor)
        ]
        shape = self.held_out_shape
        held_out = (shape.params, shape.tokens(self.held_out, self.convention))
        return Design(*np.array(rows).T, held_out=held_out)

    def precision(self, noise: float | None, seed: int) -> list[dict[str, Any]]:
        """The expected precision of this ladder and its variations. `noise` is the standard
        deviation of a run's log-loss; None takes the pilot's estimate."""
        noise = self.pilot.noise if noise is None else noise
        variations = designs(self.design, self.budgets, len(self.seeds))
        return expected_precision(self.pilot.laws, noise, self.pilot.dof, variations, seed)

    def trials(self) -> list[dict[str, Any]]:
        """The trials of its sweep, the held-out one last."""
        rate, held_out = self.pilot.rule.rate, self.held_out_shape
        rows = [
            proposal.trial(budget, shape, rate(shape.width), holdout=False, seed=seed)
            for budget in self.budgets
            for shape in self.shapes_at(budget)
            for seed in self.seeds
        ]
        last = proposal.trial(self.held_out, held_out, rate(held_out.width), holdout=True)
        return [*rows, last]

    def to_json(self) -> dict[str, Any]:
        """The budgets and their sizes, a part of pilot.json."""
        return {
            "ladder": [self._rung(budget, self.shapes_at(budget)) for budget in self.budgets],
            "held_out": self._rung(self.held_out, [self.held_out_shape]),
        }

    def _rung(self, budget: float, shapes: Sequence[Shape]) -> dict[str, Any]:
        log_n, sd = self.pilot.line.at(budget)
        low, high = log_n - Z90 * sd, log_n + Z90 * sd
        best = {name: float(np.exp(x)) for name, x in (("value", log_n), ("lo", low), ("hi", high))}
        rate = self.pilot.rule.rate
        rows = [
            {"shape": shape.text, "params": shape.params, "rate": rate(shape.width)}
            for shape in shapes
        ]
        return {"flops": budget, "params": best, "sizes": rows}
