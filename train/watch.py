"""Detects what ends a run early: divergence, stop signals and stalls."""

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
FEWEST = 20  # losses that a median needs
NOTICED = 10.0  # seconds of waiting for data after which a line says so
STALLED = 42  # exit code of a stalled or preempted run, which can be run again


def divergence(
    metrics: Mapping[str, Sequence[float]], recent: Sequence[float], max_ratio: float | None
) -> str | None:
    """Describes the fault of the newest metrics, or returns None. A fault is a value that is not
    finite, or a loss above `max_ratio` times the median of the `recent` losses before it."""
    for name, values in metrics.items():
        if not all(math.isfinite(value) for value in values):
            return f"{name} is not finite"
    losses = metrics["loss"]
    if losses and max_ratio is not None and len(recent) >= FEWEST:
        median = statistics.median(list(recent)[-MEDIAN_OF:])
        if max(losses) > max_ratio * median:
            return f"loss {max(losses):.4g} is above {max_ratio:g} times its median {median:.4g}"
    return None


def first_fault(
    metrics: Mapping[str, Sequence[float]], recent: Sequence[float], max_ratio: float | None
) -> int:
    """The number of the first of the newest steps that has a fault by itself; that of the last step
    if none has."""
    rows = [dict(zip(metrics, row, strict=True)) for row in zip(*metrics.values(), strict=True)]
    for number, row in enumerate(rows):
        if divergence({name: [value] for name, value in row.items()}, recent, max_ratio):
            return number
    return max(0, len(rows) - 1)


@dataclass
class Stop:
    """Whether a stop was requested. If several processes train one model, a request to any of them
    stops all after the same chunk."""

    requested: bool = False  # from this process; never set if `joint`
    joint: bool = False  # whether several processes train the model

    def after(self, chunk: int) -> bool:
        """Whether to stop after this chunk, counted from 1. Must be called after each chunk.

        jax's coordination service chooses the first chunk that no process has passed. The call does
        not wait for other processes and takes about 20 microseconds.
        """
        if not self.joint:
            return self.requested
        from jax.experimental import multihost_utils  # slow to import

        return multihost_utils.reached_preemption_sync_point(chunk)


@contextlib.contextmanager
def stop_signals(joint: bool = False) -> Iterator[Stop]:
    """SIGTERM and Ctrl-C request a checkpoint and a clean exit; a second Ctrl-C exits at once.

    `joint` means that this is one of several processes. Then jax handles SIGTERM and notifies the
    others.
    """
    stop, interrupted = Stop(joint=joint), []

    def request(number, frame):
        if number == signal.SIGINT and (interrupted or stop.requested):
            raise KeyboardInterrupt
        if joint:
            interrupted.append(number)
            signal.raise_signal(signal.SIGTERM)
        else:
            stop.requested = True

    watched = (signal.SIGINT,) if joint else (signal.SIGTERM, signal.SIGINT)
    try:
        old = {s: signal.signal(s, request) for s in watched}
    except ValueError:  # only the main thread can set signal handlers
        old = {}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Watchdog:
    """A context manager that ends this process with exit code 42 if no `progress` is reported for
    `seconds`. It prints the last step and the stack of every thread first. 0 disables it.

    If one of several processes hangs, for instance while it reads data, the others wait for it in a
    collective operation. Each has its own watchdog, so all of them end. One that waits for data
    says so after NOTICED seconds.
    """

    def __init__(self, seconds: float, name: str, step: int):
        self._seconds, self._name, self._step = seconds, name, step
        self._idle = 0.0  # seconds since the last progress
        self._waits, self._told = False, False  # for data
        self._ended = threading.Event()

    def __enter__(self) -> "Watchdog":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def progress(self, step: int) -> None:
        """Reports that training has reached `step`."""
        self._step, self._idle = step, 0.0

    def waits(self, for_data: bool) -> None:
        """Reports whether training waits for data from now on."""
        self._waits, self._told = for_data, False

    def _watch(self) -> None:
        # Counting short waits excludes the time during which the process was suspended.
        tick = min(1.0, self._seconds / 4 or 1.0)
        while not self._ended.wait(tick):
            self._idle += tick
            if self._waits and not self._told and self._idle >= NOTICED:
                self._told = True
                end = f"; it ends after {self._seconds:g} s (log.stall_timeout)"
                line = (
                    f"isoflop: {self._name} has waited for data for {self._idle:.0f} s after step "
                    f"{self._step}{end if self._seconds else ''}\n"
                )
                os.write(2, line.encode())
            if 0 < self._seconds < self._idle:
                line = (
                    f"isoflop: {self._name} made no progress for {self._seconds:g} s after step "
                    f"{self._step} (log.stall_timeout); its threads were:\n"
                )
                os.write(2, line.encode())
                faulthandler.dump_traceback(file=2, all_threads=True)
                os.write(2, b"isoflop: ended; run it again to resume from the last checkpoint\n")
                os._exit(STALLED)
