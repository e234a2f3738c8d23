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
    """Whether the run was asked to stop. Of several processes that train one model, each may be
    asked, and all stop after the same chunk."""

    requested: bool = False  # of this process; never set where it is `joint`
    joint: bool = False

    def after(self, chunk: int) -> bool:
        """Whether to stop after this chunk, the first being number 1; to be called after each.

        jax's coordination service agrees on the first chunk that no process has passed; the call
        itself waits for nobody and takes some 20 microseconds.
        """
        if not self.joint:
            return self.requested
        from jax.experimental import multihost_utils  # slow to import

        return multihost_utils.reached_preemption_sync_point(chunk)


@contextlib.contextmanager
def stop_signals(joint: bool = False) -> Iterator[Stop]:
    """SIGTERM and Ctrl-C ask for a checkpoint and a clean end; a second Ctrl-C ends at once.

    `joint`: of one process among several. There SIGTERM is left to jax, which tells the others.
    """
    stop, interrupted = Stop(joint=joint), []

    def ask(number, frame):
        if number == signal.SIGINT and (interrupted or stop.requested):
            raise KeyboardInterrupt
        if joint:
            interrupted.append(number)
            signal.raise_signal(signal.SIGTERM)
        else:
            stop.requested = True

    watched = (signal.SIGINT,) if joint else (signal.SIGTERM, signal.SIGINT)
    try:
        old = {s: signal.signal(s, ask) for s in watched}
    except ValueError:  # not the main thread: whoever runs us handles signals
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
