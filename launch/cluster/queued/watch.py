"""Keeps the queued resources of a cluster alive: a preempted one is asked for again, once."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from launch.cluster.queued.api import Api, Seen, Unanswered
from launch.cluster.record import Record

# What to do about each state of QueuedResourceState; '' is a resource that does not exist.
WAITING = {"CREATING", "ACCEPTED", "PROVISIONING", "WAITING_FOR_RESOURCES", "STATE_UNSPECIFIED"}
LEAVING = {"SUSPENDING", "DELETING"}
ACTIVE, SUSPENDED, FAILED, GONE = "ACTIVE", "SUSPENDED", "FAILED", ""

MOST_FAILURES = 3  # attempts of a slice in a row that fail before they have been active
# gRPC codes of a failure that another attempt would meet again: INVALID_ARGUMENT, NOT_FOUND,
# ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED,
# UNAUTHENTICATED.
PERMANENT = {3, 5, 6, 7, 9, 11, 12, 16}
EXHAUSTED = 8  # RESOURCE_EXHAUSTED: a quota, or a zone without capacity


class Stopped(ValueError):
    """A slice that cannot be had, in one line."""


def next_name(resource: Mapping[str, Any]) -> str:
    """The name of the attempt of a slice: NAME-SLICE, then NAME-SLICE-r1 and so on."""
    attempt = resource["attempt"]
    return resource["base"] + (f"-r{attempt}" if attempt else "")


class Watch:
    """Looks at every slice of a cluster, and acts on what it sees. The record is written before
    each request, so that a watch that is killed goes on without a second request."""

    def __init__(
        self,
        api: Api,
        record: Record,
        body: Callable[[Mapping[str, Any], str], dict[str, Any]],
        say: Callable[[str], None],
        ended: Callable[[], int | None] = lambda: None,
        most_failures: int = MOST_FAILURES,
    ):
        """`body` gives the request for a slice under a name, `ended` the exit code of the cluster's
        command, once there is one."""
        self.most_failures = most_failures
        self.api, self.record, self.body, self.say, self.ended = api, record, body, say, ended

    def look(self) -> dict[str, str]:
        """One look at each slice: creates what is missing, replaces what was preempted. Returns the
        state of each slice by its base name. Stopped if one cannot be had."""
        return {resource["base"]: self._look(resource) for resource in self.record.resources}

    def _look(self, resource: dict[str, Any]) -> str:
        name = next_name(resource)
        seen = self.api.get(name)
        if seen.state and seen.id and seen.id != self.record.id:
            raise Stopped(
                f"name={self.record.name}: {name} belongs to another cluster (id {seen.id}); "
                "choose another --name"
            )
        if seen.state == GONE:
            if not resource["requested"]:
                self._create(resource)
                return "CREATING"
            if resource["missing"] == 1:
                self.say(f"{name} was deleted by somebody; it is not asked for again")
            resource["missing"] += 1  # a new one may take a moment to be seen
            return "deleted" if resource["missing"] > 1 else "CREATING"
        if not resource["requested"]:
            self._note(resource, requested=True)
        if seen.state == ACTIVE and not resource["active"]:
            self.say(f"{name} is active")
            self._note(resource, active=True, failures=0)
        if seen.state in (SUSPENDED, FAILED):
            return self._ended(resource, name, seen)
        return seen.state

    def _ended(self, resource: dict[str, Any], name: str, seen: Seen) -> str:
        """What follows a slice that is suspended or has failed."""
        if seen.state == SUSPENDED and seen.by_user:
            return "suspended by its user"
        failures = resource["failures"]
        if seen.state == FAILED:
            why = seen.reason or "no reason is given"
            quota = seen.code == EXHAUSTED and "quota" in why.lower()
            if seen.code in PERMANENT or quota:
                kind = "quota: " if quota else ""
                raise Stopped(f"{name} failed: {kind}{why}; mend that and run the command again")
            failures += not resource["active"]
            if failures >= self.most_failures:
                raise Stopped(
                    f"{name} failed{f' {failures} times in a row' * (failures > 1)} before it was "
                    f"active: {why}; try another --zone"
                )
        if self.ended() is not None:  # it may have ended since the last look
            return seen.state
        what = "was preempted" if resource["active"] or seen.state == SUSPENDED else "failed"
        said = f" ({seen.reason})" if seen.reason else ""
        attempt = resource["attempt"] + 1
        self._note(
            resource,
            attempt=attempt,
            requested=False,
            missing=0,
            active=False,
            failures=failures,
            old=[*resource["old"], name],
        )
        self.say(f"{name} {what}{said}; asking again as {next_name(resource)}")
        self.api.delete(name)
        self._create(resource)
        return "CREATING"

    def _create(self, resource: dict[str, Any]) -> None:
        """Asks for the slice. If that is refused, the record says that it was not asked for."""
        name = next_name(resource)
        self.api.create(name, self.body(resource, name))
        self._note(resource, requested=True)

    def _note(self, resource: dict[str, Any], **changes: Any) -> None:
        resource.update(changes)
        self.record.save()

    def follow(
        self,
        stopped: Callable[[], bool],
        poll: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> int | None:
        """Looks until the cluster's command has `ended`, whose exit code it returns; None if it is
        `stopped` before. A slice that is lost after the end is not asked for again. While the API
        gives no answer, it says so once and looks again; only an answer ends the watch."""
        before: dict[str, str] = {}
        silent = False
        while not stopped():
            if (code := self.ended()) is not None:
                return code
            try:
                states = self.look()
            except Unanswered as error:
                if not silent:
                    self.say(f"{error}; looking again until it answers")
                silent = True
                _pause(poll, stopped, sleep)
                continue
            if silent:
                self.say("the API answers again")
            silent = False
            if states != before:
                self.say(summary(states))
            before = states
            if states and all(state == "deleted" for state in states.values()):
                raise Stopped(f"all slices of {self.record.name} were deleted by somebody")
            _pause(poll, stopped, sleep)
        return None


def _pause(seconds: float, stopped: Callable[[], bool], sleep: Callable[[float], None]) -> None:
    """Sleeps in steps of a tenth of a second until `stopped`."""
    until = time.monotonic() + seconds
    while not stopped() and (left := until - time.monotonic()) > 0:
        sleep(min(0.1, left))


def summary(states: Mapping[str, str]) -> str:
    """How many slices are in each state: '12 of 16 slices active, 4 waiting_for_resources'."""
    counts: dict[str, int] = {}
    for state in states.values():
        counts[state.lower()] = counts.get(state.lower(), 0) + 1
    active = counts.pop("active", 0)
    rest = "".join(f", {count} {state}" for state, count in sorted(counts.items()))
    return f"{active} of {len(states)} slices active{rest}"


def slice_resource(base: str, index: int) -> dict[str, Any]:
    """How a record keeps one slice. `attempt` counts its requests from 0; `old` names those that
    ended; `failures` counts those in a row that were never active, `missing` the looks that found
    nothing."""
    return dataclasses.asdict(_Slice(base, index))


@dataclasses.dataclass
class _Slice:
    base: str
    index: int
    attempt: int = 0
    requested: bool = False
    active: bool = False
    missing: int = 0
    failures: int = 0
    old: list[str] = dataclasses.field(default_factory=list)
