"""The workers of a trial that spans several hosts: they begin together and end together."""

import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from launch.errors import BAD_INPUT, BUG, DIVERGED, DONE, IN_USE, PREEMPTED
from launch.runners.ray_worker import Begin, Status

GRACE = 5.0  # seconds between the end of one host and the others being killed: all leave together
MEMBER = "launch.runners.ray_slices:member"
WORST = (BUG, PREEMPTED, BAD_INPUT, IN_USE, DIVERGED, DONE)  # what the whole trial ended with


@dataclass
class Gang:
    """The workers of a trial, that of the first host first, and what their parts ended with."""

    members: list[Any]  # ray_session.WorkerHandle
    outcomes: dict[int, tuple[str, int, str]] = field(default_factory=dict)
    first_end: float = 0.0
    killed: bool = False

    def is_busy(self, worker: Any) -> bool:
        """Whether a worker has a part of a trial that has not ended, as far as is known."""
        index = self.members.index(worker)
        return self.members[0].begin is not None and index not in self.outcomes

    def parts(self, begin: Begin, coordinator: str) -> list[Begin]:
        """The task of each host; those after the first have logs of their own."""
        self.outcomes, self.killed = {}, False
        found = []
        for index in range(len(self.members)):
            args = coordinator, len(self.members), index, begin.function, begin.task.args
            log = begin.task.log
            log = log.with_name(f"{log.stem}-{index}{log.suffix}") if index else log
            task = replace(begin.task, args=args, log=log)
            found.append(replace(begin, function=MEMBER, task=task))
        return found

    def heard(self, worker: Any, status: Status) -> Status | None:
        """The status of the whole trial once all parts have ended, None before."""
        begin = self.members[0].begin
        if begin is None:
            return None
        if status.ended and status.ended[0] == begin.token:
            token, code, reason = status.ended
            if self.killed:
                code, reason = PREEMPTED, "another host was lost"
            self.first_end = self.first_end if self.outcomes else time.monotonic()
            self.outcomes.setdefault(self.members.index(worker), (token, code, reason))
        if len(self.outcomes) == len(self.members):
            worst = min(self.outcomes.values(), key=lambda one: _badness(one[1]))
            return replace(status, running=None, ended=worst)
        if self.outcomes and time.monotonic() - self.first_end > GRACE and not self.killed:
            self.killed = True
            for index, member in enumerate(self.members):
                if index not in self.outcomes:
                    member.actor.signal.remote(signal.SIGKILL)
        return None


def regained(found: Sequence[tuple[Any, Status]]) -> Gang | None:
    """The slot of workers of one group (with what they do) that an earlier driver began; None where
    one is missing, or does not run the same attempt."""
    found = sorted(found, key=lambda one: one[1].reservation.share.index)
    statuses = [status for _, status in found]
    begun = next((status.running for status in statuses if status.running), None)
    first = statuses[0].reservation
    if first.share.index or len(found) != 1 + len(first.peers):
        return None
    for status in statuses if begun else ():
        token = status.running.token if status.running else (status.ended or ("",))[0]
        if token != begun.token:
            return None
    gang = Gang([worker for worker, _ in found])
    for worker in gang.members:
        worker.gang, worker.begin = gang, None
    if begun:
        function, args = begun.task.args[-2:]
        task = replace(begun.task, args=args)
        gang.members[0].begin = replace(begun, function=function, task=task)
    return gang


def _badness(code: int) -> int:
    return WORST.index(code) if code in WORST else -1
