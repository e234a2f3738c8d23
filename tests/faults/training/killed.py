"""Runs that kill themselves: `isoflop` in a child process that a signal ends at a chosen moment.

A parent that has imported everything forks a child for each run, which saves their imports. As a
program it reads lines of JSON {"argv": […], "kill": {"at": MOMENT, "step": N, "after": seconds}}
from stdin, and answers each with the exit code of that run (-9 for SIGKILL).

MOMENT is "step" (a chunk that ends at step N was taken, nothing of it is written), "row" (half of
the row of step N is written), "save" (`after` seconds after the save of step N has begun) or
"rewind" (at the first spike: before the run goes back, or with "after": true right after it has).
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tests import spawn


class Runs:
    """The parent, as seen from a test."""

    def __init__(self, process: subprocess.Popen):
        self._process = process

    def __call__(
        self, argv: Sequence[str], kill: Mapping[str, Any] | None = None, bad: dict | None = None
    ) -> int:
        """The exit code of a run, which has the batches `bad` of `bad_batches`."""
        about = {"argv": list(argv), "kill": kill, "bad": bad}
        self._process.stdin.write(json.dumps(about) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def parent() -> Iterator[Runs]:
    command = [sys.executable, "-m", "tests.faults.training.killed"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=spawn.ROOT, text=True, **pipes) as process:
        yield Runs(process)
        process.stdin.close()


def _kill(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _at_step(step: int) -> None:
    from train.record import Record

    add = Record.add_chunk

    def added(self: Record, *given: Any) -> None:
        add(self, *given)
        if self.step >= step:
            _kill()

    Record.add_chunk = added


def _at_row(step: int) -> None:
    from train.metrics import MetricsLog

    write = MetricsLog.write

    def half(self: MetricsLog, row: dict) -> None:
        if row["step"] < step:
            write(self, row)
            return
        with open(self.path, "a") as file:
            file.write(json.dumps(row)[: len(json.dumps(row)) // 2])
        _kill()

    MetricsLog.write = half


def _at_save(step: int, after: float) -> None:
    from train.checkpoint import Checkpoints

    save = Checkpoints.save

    def saving(self: Checkpoints, at: int, *given: Any) -> None:
        if at < step:
            save(self, at, *given)
            return
        if after:
            timer = threading.Timer(after, _kill)
            timer.start()
        save(self, at, *given)
        self.wait()
        _kill()

    Checkpoints.save = saving


def _at_rewind(before: bool) -> None:
    from train.record import Record

    rewind = Record.rewind

    def killing(self: Record, *given: Any) -> Any:
        if before:
            self.checkpoints.restore_before = _kill
        rewind(self, *given)
        _kill()

    Record.rewind = killing


def _run(about: Mapping[str, Any]) -> int:
    from launch.__main__ import main

    kill = about["kill"]
    if about.get("bad"):
        from tests.faults.training import bad_batches

        bad_batches.patched(setattr, {int(step): fault for step, fault in about["bad"].items()})
    if kill and kill["at"] == "rewind":
        _at_rewind(not kill["after"])
    elif kill and kill["at"] == "step":
        _at_step(kill["step"])
    elif kill and kill["at"] == "row":
        _at_row(kill["step"])
    elif kill:
        _at_save(kill["step"], kill["after"])
    return main(about["argv"])


def _fork(about: Mapping[str, Any]) -> int:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        os._exit(_run(about))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    import launch.trial.run  # noqa: F401  what every child needs
    import train.loop  # noqa: F401

    for line in sys.stdin:
        print(_fork(json.loads(line)), flush=True)
