"""Visits the instructions of a compiled program, with the number of times that each runs.

XLA's cost analysis counts the body of a loop only once, and Pallas kernels not at all.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from train.ahead_of_time import trips
from train.ahead_of_time.hlo import Computation, Instruction, Module

_BRANCHES = re.compile(
    r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%[\w.\-]+))"
)


@dataclass(frozen=True)
class Visit:
    """An instruction of `computation` that runs `times` per step; `path` holds the fusions around
    it, outermost first."""

    instruction: Instruction
    computation: Computation
    times: int
    path: tuple[Instruction, ...]


# Opcodes that run another computation, and the attribute that names it. TPU7x runs collectives on
# its sparse cores with call-start.
_INSIDE = {"fusion": "calls", "call": "to_apply", "async-start": "calls", "call-start": "to_apply"}


def walk(
    module: Module,
    unknown: Callable[[Instruction], None] = lambda loop: None,
    longest: int = 1,
) -> Iterator[Visit]:
    """Visits every instruction that runs, and counts how often. Trip counts of nested loops
    multiply.

    A loop with an unknown trip count is passed to `unknown`. It counts as `longest` iterations, or
    as one inside another loop. The loop over the steps of a training chunk is such a loop, so all
    counts are per step; the loop over the tokens of responses is another. Of the branches of a
    conditional, only the one with the most instructions is visited.
    """

    def visit(
        name: str, times: int, path: tuple[Instruction, ...], arguments: list
    ) -> Iterator[Visit]:
        here = module.computations[name]
        for one in here.instructions:
            yield Visit(one, here, times, path)
            if one.opcode == "while":
                count = trips.count(one, here, module, arguments)
                if count is None:
                    unknown(one)
                carried = trips.invariants(one, here, module, arguments)
                if count is None:
                    count = longest if times == 1 else 1
                yield from visit(one.called("body"), times * count, path, [carried])
            elif one.opcode == "conditional":
                size = lambda branch: len(module.computations[branch].instructions)  # noqa: E731
                yield from visit(max(_branches(one), key=size), times, path, [])
            elif one.opcode in _INSIDE:
                inner = one.called(_INSIDE[one.opcode]) or one.called("calls")
                deeper = (*path, one) if one.opcode == "fusion" else path
                yield from visit(inner, times, deeper, [])

    return visit(module.entry, 1, (), [])


def _branches(conditional: Instruction) -> list[str]:
    """Names of the computations that a conditional chooses from."""
    matches = _BRANCHES.findall(conditional.attributes)
    return [name.strip(" %") for many, one in matches for name in (many or one).split(",")]
