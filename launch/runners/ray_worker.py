"""The worker of one slot of a Ray cluster: an actor that runs one task after another in a process
of its own, as a slot of `launch.runners.local` does.

It keeps that process, and so its compiled programs, from task to task. It outlives the driver, and
ends by itself, after its task has saved, if no driver comes back.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.files import to_path
from launch.errors import DONE
from launch.runners import local, ray_groups
from launch.runners.tasks import Event, Slot, Task

LEAVE_BUSY, LEAVE_IDLE = 600.0, 60.0  # seconds without a driver
FROZEN = 30.0  # seconds that the process of a task may be stopped (SIGSTOP)
KILLED = -signal.SIGKILL  # exit code of a task whose process was killed from outside
TO_SAVE = 120.0  # seconds between SIGTERM and SIGKILL when there is no driver
LINE = 200  # characters of a log that a driver shows
_TICK = 0.1  # seconds between looks at a process


@dataclass(frozen=True)
class Begin:
    """A task to run. `token` names this attempt, `signature` what is run."""

    token: str
    function: str
    task: Task
    attempt: int
    signature: str


@dataclass(frozen=True)
class Status:
    """What a worker does: the attempt that runs, and how the last one ended."""

    owner: str  # the driver that it belongs to
    absent: float  # seconds since that driver asked
    host: str
    reservation: "Reservation"
    running: Begin | None = None
    ended: tuple[str, int, str] | None = None  # token, exit code, reason
    blind: bool = False  # whether it does not see the folder of the sweep


@dataclass(frozen=True)
class Share:
    """What a slot has of its machine: share `index` of `count` of its `cores`; count 0:
    accelerators, which Ray chooses. Processes are `pinned` to cores where the slots of the sweep
    take the whole machine; elsewhere another sweep may pin the same ones."""

    cores: int = 0
    index: int = 0
    count: int = 0
    most: int = 0  # cores; 0: all of the share
    pinned: bool = False


@dataclass(frozen=True)
class Reservation:
    """Where the worker of a slot runs, and what it takes of that machine. Its `peers` are on the
    other hosts of a trial that spans several; all then belong to the placement group `group`."""

    node: str
    share: Share
    demand: Mapping[str, Any]  # of ray.remote: num_cpus, num_gpus, resources
    environment: Mapping[str, str] = field(default_factory=dict)
    peers: "tuple[Reservation, ...]" = ()
    group: str = ""

    @property
    def nodes(self) -> set[str]:
        """The machines of all hosts."""
        return {one.node for one in (self, *self.peers)}

    @property
    def key(self) -> str:
        nodes = " ".join(one.node for one in (self, *self.peers))
        return f"{nodes} {self.share} {sorted(self.demand.items())}"


class RemoteWorker:
    """The actor. All methods but `__init__` and `begin_and_wait` return at once."""

    def __init__(
        self,
        driver: str,
        reservation: Reservation,
        environment: dict[str, str],
        folder: str,
        seen: str,
    ):
        """`environment` is set before jax starts, `folder` is where the driver runs, and `seen` a
        file that every worker must see ('': none)."""
        sys.modules["__main__"].__file__ = None  # Ray's, which a spawned process need not import
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self.owner, self.seen_at, self.reservation = driver, time.monotonic(), reservation
        self.seen, self.blind = seen, bool(seen)
        self._look_for_the_folder()
        cores = _cores(reservation.share)
        threads = local.threads(len(cores)) if cores else {}
        cores = cores if reservation.share.pinned else ()
        self.worker = local.Worker(
            Slot(cores, environment | dict(reservation.environment) | threads)
        )
        self.running: Begin | None = None
        self.begun = False  # whether its process has been given it
        self.ended: tuple[str, int, str] | None = None
        self.stopped_for = 0.0
        self.patience = LEAVE_BUSY, LEAVE_IDLE
        self.changed = threading.Condition()
        threading.Thread(target=self._supervise, daemon=True).start()

    def status(self) -> Status:
        """What it does."""
        absent, host = time.monotonic() - self.seen_at, os.uname().nodename
        return Status(
            self.owner, absent, host, self.reservation, self.running, self.ended, self.blind
        )

    def claim(self, driver: str, former: str) -> bool:
        """Makes it the worker of `driver`, if it is that of `former`."""
        with self.changed:
            if self.owner == former:
                self.owner, self.seen_at = driver, time.monotonic()
            return self.owner == driver

    def begin_and_wait(
        self,
        driver: str,
        seconds: float,
        begin: Begin | None,
        patience: tuple[float, float],
        busy: bool = True,
    ) -> Status:
        """Starts a task, unless one runs, and returns when no task runs (if `busy`: the driver
        knows of one), when one begins (if not), or after `seconds`.
        `patience`: seconds without a driver after which it leaves, busy and idle."""
        self._look_for_the_folder()
        with self.changed:
            if self.owner != driver:
                return self.status()
            self.seen_at, self.patience = time.monotonic(), patience
            if begin and not self.running and not self.blind:
                self.running, self.begun, self.stopped_for = begin, False, 0.0
                self.changed.notify_all()
            self.changed.wait_for(lambda: bool(self.running) != busy, seconds)
            self.seen_at = time.monotonic()
            return self.status()

    def _look_for_the_folder(self) -> None:
        """A shared folder may be mounted late, or show a new file late."""
        if self.blind:
            with contextlib.suppress(OSError):
                self.blind = not to_path(self.seen).exists()

    def free_port(self) -> int:
        """A port of this machine that nothing listens at."""
        with socket.socket() as free:
            free.bind(("", 0))
            return free.getsockname()[1]

    def signal(self, number: int) -> None:
        """Sends a signal to the process of the task that runs."""
        if self.running:
            self.worker.signal(number)

    def leave(self) -> None:
        """Ends its process and the actor; a task that runs is killed."""
        self.worker.close()
        if self.reservation.group:
            with contextlib.suppress(Exception):
                ray_groups.remove(self.reservation.group)
        os._exit(0)

    def _supervise(self) -> None:
        """Starts and follows the tasks. No other thread touches `worker`, except for signals."""
        try:
            while True:
                self._look()
                busy, idle = self.patience
                if time.monotonic() - self.seen_at > (busy if self.running else idle):
                    self._leave_alone()
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # the driver learns of it

    def _look(self) -> None:
        """Waits for a moment, and notes how the task has ended, if it has."""
        with self.changed:
            self.changed.wait_for(lambda: self.running, _TICK)
            begin = self.running
        if begin is None:
            return
        if not self.begun:
            self.worker.start(begin.function, begin.task, begin.attempt)
            self.begun = True
        local.wait_for([self.worker], _TICK)
        event = self.worker.poll(attempts=1, stopping=False)
        if event is None:
            self._end_frozen()
            return
        if event.reason == local.DIED.format("SIGKILL"):
            event = replace(event, code=KILLED)
        if self.stopped_for > FROZEN:
            event = replace(event, reason=f"its process was frozen for {FROZEN:g} s")
        self._note(begin, event)

    def _note(self, begin: Begin, event: Event) -> None:
        reason = event.reason
        if event.code not in (DONE, KILLED) and (said := last_line(begin.task.log)):
            reason = f"{reason}: {said}"
        with self.changed:
            self.running, self.ended = None, (begin.token, event.code, reason)
            self.changed.notify_all()

    def _end_frozen(self) -> None:
        """Kills a process that has been stopped for too long: thawed, it would find another owner
        in its folder."""
        stopped = _is_stopped(self.worker.process)
        self.stopped_for = self.stopped_for + _TICK if stopped else 0.0
        if self.stopped_for > FROZEN:
            self.worker.signal(signal.SIGKILL)

    def _leave_alone(self) -> None:
        """Lets the task save, and ends."""
        until = time.monotonic() + TO_SAVE
        self.worker.signal(signal.SIGTERM)
        while self.running and time.monotonic() < until:
            self._look()
        self.leave()


def last_line(log: Path) -> str:
    """The end of a trial's log, at most LINE characters; '' if it cannot be read."""
    with contextlib.suppress(OSError):
        lines = to_path(str(log)).read_text("utf-8", errors="replace").split("\n")
        return next((line.strip()[:LINE] for line in reversed(lines) if line.strip()), "")
    return ""


def _cores(share: Share) -> tuple[int, ...]:
    """The numbers of the cores of a slot; () where it has accelerators."""
    if not share.count:
        return ()
    owned = local.available_cores()
    owned = [owned[i % len(owned)] for i in range(share.cores)][share.index :: share.count]
    return tuple(dict.fromkeys(owned[: share.most or len(owned)]))


def _is_stopped(process: Any) -> bool:
    """Whether a process is stopped by a signal, where the kernel says so."""
    with contextlib.suppress(OSError, AttributeError, IndexError):
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    return False
