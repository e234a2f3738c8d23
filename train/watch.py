"""What ends a run early: losses that diverge, signals that ask it to stop, and a stall."""

import contextlib
import faulthandler
import math
import os
import signal
import statistics
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MEDIAN_OF = 100  # steps whose median loss is the reference
FEWEST = 20  # losses that make a median
STALLED = 42  # exit code of a run that stalled, the same as of a preempted one: run it again


def divergence(
    metrics: Mapping[str, Sequence[float]], recent: Sequence[float], max_ratio: float | None
) -> str | None:
    """What is wrong with the newest metrics, in words: one is not finite, or a loss is above
    `max_ratio` times the median of the `recent` ones before; else None."""
    for name, values in metrics.items():
        if not all(math.isfinite(value) for value in values):
            return f"{name} is not finite"
    losses = metrics["loss"]
    if max_ratio is not None and len(recent) >= FEWEST:
        median = statistics.median(list(recent)[-MEDIAN_OF:])
        if max(losses) > max_ratio * median:
            return f"loss {max(losses):.4g} is above {max_ratio:g} times its median {median:.4g}"
    return None


@dataclass
class Stop:
    """Whether the run was asked to stop. Any of several processes that train one model may be
    asked; all stop after the same chunk."""

    requested: bool = False  # of this process; never set where it is `joint`
    joint: bool = False

    def after(self, chunk: int) -> bool:
        """Whether to stop after this chunk; the first is number 1. Must be called after each chunk.

        jax's coordination service chooses the first chunk that no process has passed. The call does
        not wait for other processes and takes about 20 microseconds.
        """
        if not self.joint:
            return self.requested
        from jax.experimental import multihost_utils  # slow to import

        return multihost_utils.reached_preemption_sync_point(chunk)


@contextlib.contextmanager
def stop_signals(joint: bool = False) -> Iterator[Stop]:
    """SIGTERM and Ctrl-C ask for a checkpoint and a clean end; a second Ctrl-C ends at once.

    `joint`: this is one of several processes. Then jax handles SIGTERM and tells the others.
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
    except ValueError:  # not the main thread, which alone can handle signals
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Watchdog:
    """A context that ends this process with exit code 42 when no `progress` is reported for
    `seconds`: it names the step and prints the stack of every thread. 0 seconds: never.

    When one of several processes hangs, for instance while it reads data, the others wait for it in
    a collective operation. Each has its own watchdog, so all of them end.
    """

    def __init__(self, seconds: float, name: str, step: int):
        self._seconds, self._name, self._step = seconds, name, step
        self._silent = 0.0  # seconds since the last progress
        self._ended = threading.Event()

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def progress(self, step: int) -> None:
        """Reports that training has reached `step`."""
        self._step, self._silent = step, 0.0

    def _watch(self) -> None:
        # Counting short waits leaves out the time in which the whole process was suspended.
        tick = min(1.0, self._seconds / 4)
        while not self._ended.wait(tick):
            self._silent += tick
            if self._silent > self._seconds:
                line = (
                    f"isoflop: {self._name} made no progress for {self._seconds:g} s after step "
                    f"{self._step} (log.stall_timeout); its threads were:\n"
                )
                os.write(2, line.encode())
                faulthandler.dump_traceback(file=2, all_threads=True)
                os.write(2, b"isoflop: ended; run it again to go on from the last checkpoint\n")
                os._exit(STALLED)
