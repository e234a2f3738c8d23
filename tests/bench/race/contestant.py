"""The main loop of a benchmark process: it trains on request and reports its speed.

Imports no framework, so that any Python can run it.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Protocol

from tests.bench.race.shapes import SHAPES, Shape


class Timed(Protocol):
    """What is measured: steps of one call of `advance`, and the model FLOPs of a step."""

    steps: int
    flops: float


Advance = Callable[[], None]  # takes shape.steps steps and waits for their result


def main(prepare: Callable[[Shape], tuple[Advance, int | None]]) -> None:
    """Runs `MODULE SHAPE [SECONDS]`.

    `prepare` returns (advance, parameter count), with None as the count if there is no model.
    With SECONDS, trains once for that long. Otherwise reads durations from the lines of stdin.
    """
    shape = SHAPES[sys.argv[1]]
    advance, parameters = prepare(shape)
    expected = shape.parameters + shape.context * shape.d_model
    if parameters not in (None, expected):
        raise ValueError(f"{sys.argv[0]} has {parameters} parameters, {shape.name} has {expected}")
    serve(shape, advance)


def serve(shape: Timed, advance: Advance) -> None:
    """Says how long the first call took beyond the second, then the speed over each duration."""
    first, steady = _seconds(advance), _seconds(advance)
    _say({"compile_seconds": max(0.0, first - steady)})
    for line in sys.argv[2:] or sys.stdin:
        _say({"gflops": measure(shape, advance, float(line))})


def measure(shape: Timed, advance: Advance, seconds: float) -> float:
    """Model GFLOP/s over as many whole calls as take at least `seconds`."""
    calls, begun = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - begun) < seconds:
        advance()
        calls += 1
    return calls * shape.steps * shape.flops / elapsed / 1e9


def _seconds(advance: Advance) -> float:
    begun = time.perf_counter()
    advance()
    return time.perf_counter() - begun


def _say(answer: dict) -> None:
    print(json.dumps(answer), flush=True)
