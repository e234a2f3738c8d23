"""This file watches a run from outside: losses that diverge, signals that ask it to stop."""

import contextlib
import math
import signal
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MEDIAN_OF = 100  # steps whose median loss is the reference
FEWEST = 20  # losses that make a median


def divergence(
    metrics: Mapping[str, Sequence[float]], recent: Sequence[float], max_ratio: float
) -> str | None:
    """What is wrong with the newest metrics, in words: one is not finite, or a loss is above
    `max_ratio` times the median of the `recent` ones before; else None."""
    for name, values in metrics.items():
        if not all(math.isfinite(value) for value in values):
            return f"{name} is not finite"
    losses = metrics["loss"]
    if len(recent) >= FEWEST:
        median = statistics.median(list(recent)[-MEDIAN_OF:])
        if max(losses) > max_ratio * median:
            return f"loss {max(losses):.4g} is above {max_ratio:g} times its median {median:.4g}"
    return None


@dataclass
class Stop:
    requested: bool = False


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """SIGTERM and Ctrl-C ask for a checkpoint and a clean end; a second Ctrl-C ends at once."""
    stop = Stop()

    def ask(number, frame):
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.requested = True

    try:
        old = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us handles signals
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
