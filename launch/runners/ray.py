"""Runs tasks on the machines of a Ray cluster, which may come and go while a sweep runs.

Every slot has a worker (`ray_worker`), which this driver asks how its task ends (`ray_session`).
Workers outlive the driver: the next driver of the same folder takes them over.
"""

import atexit
import collections
import functools
import hashlib
import operator
import secrets
import signal
import sys
import time
from collections.abc import Iterable, Iterator

from launch.errors import BAD_INPUT, DIVERGED, DONE, PREEMPTED, BadInput
from launch.runners import local, ray_cluster, ray_slices
from launch.runners.ray_session import Lost, Session, WorkerHandle
from launch.runners.ray_slices import Node
from launch.runners.ray_tries import Try
from launch.runners.ray_worker import KILLED, Begin, Reservation, Status
from launch.runners.tasks import Cluster, Event, Interrupt, Resources, Slot, Task

ELSEWHERE = 60.0  # seconds that a task waits for a machine where it has not failed
SOON = 60.0  # seconds after its start in which a failure may be the fault of the machine
SUSPECT = 3  # different tasks that fail so on one machine, none ending in between: it is avoided
LONGEST_PAUSE = 60.0  # seconds between two attempts of a task that is preempted again and again
UNUSED = 60.0  # seconds after which a worker without tasks gives its resources back
_LOOK = 2.0  # seconds between looks at the machines
_TICK = 0.25
_END = object()

_sessions: dict[str, Session] = {}  # by folder: workers stay warm between the stages of a sweep


def resources(workers: int, cluster: Cluster | None = None) -> Resources:
    """Joins or starts a cluster. ValueError if it cannot be reached or no machine fits a trial."""
    cluster = cluster or Cluster()
    ray_cluster.connect(cluster)
    there = ray_cluster.nodes()
    found = Resources(ray_cluster.platform(there, cluster), workers=workers, cluster=cluster)
    ray_cluster.require_room(there, found)
    return found


def slots(tasks: int, resources: Resources) -> list[Slot]:
    """Where that many tasks would run on the machines that are there now."""
    reservations = ray_cluster.reservations(ray_cluster.nodes(), tasks, resources)[:tasks]
    cores = [range(max(1, int(reservation.demand["num_cpus"]))) for reservation in reservations]
    return [Slot(() if resources.platform != "cpu" else tuple(one)) for one in cores]


def adopted(resources: Resources) -> set[str]:
    """The keys of tasks that workers of an earlier driver of the folder still run; `run` reports
    how they end."""
    return {worker.begin.task.key for worker in session(resources).running}


require_all_used = ray_slices.require_all_used


def session(resources: Resources) -> Session:
    """The workers of this driver for the sweep's folder."""
    if resources.sweep not in _sessions:
        _sessions[resources.sweep] = Session(resources)
        atexit.register(close)
    _sessions[resources.sweep].resources = resources
    return _sessions[resources.sweep]


def close() -> None:
    """Ends all workers of this process."""
    while _sessions:
        _sessions.popitem()[1].close()


def run(
    function: str, tasks: Iterable[Task | None], resources: Resources, interrupt: Interrupt
) -> Iterator[Event | None]:
    """Runs the tasks as `launch.runners.Runner.run` says. A task that fails is tried again
    `ray_tries.RETRIES` times, on other machines where there are any, and one whose worker is killed
    `ray_tries.KILLS` times. One whose machine is lost, or that ends as preempted, is tried again
    until it ends."""
    yield from _Run(function, tasks, resources, interrupt).events()


class _Run:
    """One call of `run`."""

    def __init__(
        self,
        function: str,
        tasks: Iterable[Task | None],
        resources: Resources,
        interrupt: Interrupt,
    ):
        self.function, self.resources, self.interrupt = function, resources, interrupt
        self.session = session(resources)
        self.most = operator.length_hint(tasks, sys.maxsize)
        self.new, self.ended = iter(tasks), self.most == 0
        self.again: list[Try] = []
        self.tries: dict[str, tuple[Try, float]] = {}  # by token, with the time of its start
        self.held_up: dict[str, Try] = {}  # by token of an adopted attempt that runs first
        self.planned: dict[str, list[Reservation]] = {}  # by machine, as of its first look
        self.names: dict[str, str] = {}  # of machines, by id
        self.suspects: dict[str, set[str]] = collections.defaultdict(set)
        self.avoided: set[str] = set(self.session.blind)
        self.said: set[str] = set()
        self.slots: dict[str, str] = {}  # the wanted slots: key → machine
        self.looked, self.signalled = 0.0, 0
        self.session.renew()

    def events(self) -> Iterator[Event | None]:
        yield from self._adopt_listed()
        while self.tries or self.held_up or (self._left() and not self.interrupt.count):
            if not self.interrupt.count:
                self._follow_the_machines()
                yield from self._give_tasks()
            if self.interrupt.count > self.signalled:
                self.signalled = self.interrupt.count
                self.session.signal(signal.SIGTERM if self.signalled == 1 else signal.SIGKILL)
            for answer in self.session.answers(_TICK):
                if isinstance(answer, Lost):
                    yield from self._lost(answer)
                elif isinstance(answer, str):
                    yield from self._say(answer)
                else:
                    yield from self._answered(*answer)
            yield None

    def _adopt_listed(self) -> Iterator[Event]:
        """Reports a start for each listed task that a worker of an earlier driver still runs. Where
        the tasks are not a list but chosen one by one, `_begin` does that later."""
        if self.most == sys.maxsize:
            return
        rest = []
        for task in self.new:
            adopted, event = self._adopt(Try(task))
            rest += [] if adopted else [task]
            if event:
                yield event
        self.new = iter(rest)

    def _follow_the_machines(self) -> None:
        """Starts workers on machines that have joined, and ends those that nothing needs."""
        if time.monotonic() - self.looked < _LOOK:
            return
        self.looked = time.monotonic()
        wanted = self._wanted([n for n in ray_cluster.nodes() if n.id not in self.avoided])
        wanted = wanted[: self.resources.workers or len(wanted)]
        free = collections.Counter(reservation.key for reservation in wanted)
        for worker in list(self.session.workers):
            free[worker.key] -= 1
            idle = worker.free and time.monotonic() - worker.idle_since
            misfit = free[worker.key] < 0
            if idle is not False and (misfit or (idle > UNUSED and self._left() == 0)):
                self.session.dismiss(worker)
        self.slots = {one.key: one.node for one in wanted}
        room = self._left() - sum(self._is_of_use(worker) for worker in self.session.workers)
        for reservation in wanted:
            if free[reservation.key] > 0 and room > 0:
                free[reservation.key] -= 1
                room -= 1
                self.session.create(reservation)

    def _wanted(self, there: list[Node]) -> list[Reservation]:
        """The slots that the machines are to have. A machine keeps those of its first look; slices
        are complete only when their last host has joined, and keep the workers that they have."""
        plan = functools.partial(ray_cluster.reservations, tasks=self.most)
        if self.resources.cluster.slice:
            ids = {node.id for node in there}
            kept = [one.reservation for one in self.session.workers]
            kept = [one for one in kept if one.nodes <= ids]
            taken = {node for one in kept for node in one.nodes}
            rest = [node for node in there if node.id not in taken]
            return [*kept, *plan(rest, resources=self.resources)]
        for node in there:
            if node.id not in self.planned:
                found = plan(there, resources=self.resources)
                self.planned[node.id] = [one for one in found if one.node == node.id]
        return [one for node in there for one in self.planned[node.id]]

    def _is_of_use(self, worker: WorkerHandle) -> bool:
        """Whether a worker without a task may take one that is left."""
        more = not self.ended and self._left() > len(self.again)
        return worker.begin is None and (
            more or any(worker.node not in one.failed_on for one in self.again)
        )

    def _left(self) -> int:
        """Tasks that no worker has, as far as is known."""
        return len(self.again) + (0 if self.ended else operator.length_hint(self.new, sys.maxsize))

    def _give_tasks(self) -> Iterator[Event]:
        asked = True
        for worker in [worker for worker in self.session.workers if worker.free]:
            if worker.node in self.avoided or worker.key not in self.slots:
                self.session.dismiss(worker)
                self.looked = 0.0  # another may take its place at once
                continue
            chosen = next((one for one in self.again if self._may(one, worker)), None)
            if chosen:
                self.again.remove(chosen)
            elif asked and not self.ended:
                task = next(self.new, _END)
                self.ended = task is _END
                asked = isinstance(task, Task)
                chosen = Try(task) if asked else None
            if chosen is not None and (event := self._begin(chosen, worker)):
                yield event

    def _may(self, one: Try, worker: WorkerHandle) -> bool:
        """Whether a task that is tried again may run there: where it failed only if there is no
        other machine."""
        waited = time.monotonic() - one.not_before
        others = set(self.slots.values()) - one.failed_on
        elsewhere = worker.node not in one.failed_on or not others
        late = waited > ELSEWHERE and not one.bad_inputs
        return waited >= 0 and (elsewhere or late)

    def _signature(self, task: Task) -> str:
        return hashlib.sha256(f"{self.function}{task.args}".encode()).hexdigest()[:16]

    def _adopt(self, one: Try) -> tuple[bool, Event | None]:
        """Whether an adopted worker runs the task, and the event that says so; None where it runs
        the task with other arguments, after which the task is run again."""
        for worker in self.session.running:
            begin = worker.begin
            if begin.task.key != one.task.key or begin.token in self.tries:
                continue
            if begin.signature != self._signature(one.task):
                self.held_up[begin.token] = one
                return True, None
            self.tries[begin.token] = one, time.monotonic()
            return True, Event("started", one.task.key, one.attempt)
        return False, None

    def _begin(self, one: Try, worker: WorkerHandle) -> Event | None:
        """Starts the task, unless an adopted worker runs it already."""
        adopted, event = self._adopt(one)
        if adopted:
            return event
        signature = self._signature(one.task)
        begin = Begin(secrets.token_hex(8), self.function, one.task, one.attempt, signature)
        self.tries[begin.token] = one, time.monotonic()
        self.session.ask(worker, begin)
        return Event("started", one.task.key, one.attempt)

    def _answered(self, worker: WorkerHandle, status: Status) -> Iterator[Event]:
        begin = worker.begin
        if status.owner != self.session.driver:  # another driver took it over: nobody's fault
            if worker in self.session.workers:
                self.session.workers.remove(worker)
            if begin and (one := self._taken(begin.token)):
                yield self._preempted(one, "another driver of the folder has its worker")
            return
        if begin is None:
            self.session.ask(worker)
        elif status.ended and status.ended[0] == begin.token:
            _, code, reason = status.ended
            self.session.freed(worker)
            yield from self._ended(begin, worker, code, reason)
        elif status.running and status.running.token == begin.token:
            self.session.ask(worker)
        else:  # it was not free
            self.session.workers.remove(worker)
            if one := self._taken(begin.token):
                self.again.append(one)

    def _taken(self, token: str) -> Try | None:
        """The task of an attempt, which has ended."""
        if token in self.held_up:
            self.again.append(self.held_up.pop(token))
        return self.tries.pop(token, (None,))[0]

    def _ended(self, begin: Begin, worker: WorkerHandle, code: int, reason: str) -> Iterator[Event]:
        began = self.tries.get(begin.token, (None, 0.0))[1]
        one = self._taken(begin.token)
        if one is None:
            return
        elsewhere = not one.bad_inputs and set(self.slots.values()) - {worker.node}
        if code == BAD_INPUT and not self.interrupt.count and elsewhere:
            yield from self._bad_input(one, worker, reason)
        elif code in local.FINAL:
            if code in (DONE, DIVERGED):
                self.suspects.pop(worker.node, None)
            elif code == BAD_INPUT and one.bad_inputs:
                yield from self._cleared(one.task.key)
            yield Event("finished", one.task.key, one.attempt, code, reason)
        elif self.interrupt.count:
            return
        elif code == PREEMPTED:
            yield self._preempted(one, reason)
        else:
            yield from self._failed(one, worker, code, reason, time.monotonic() - began)

    def _lost(self, lost: Lost) -> Iterator[Event]:
        begin = lost.worker.begin
        began = self.tries.get(begin.token, (None, 0.0))[1] if begin else 0.0
        one = self._taken(begin.token) if begin else None
        if lost.blind:
            yield from self._avoid_blind(lost)
        elif begin is None and not lost.worker.answered and not lost.with_node:
            key = f"a worker ({len(self.suspects[lost.worker.node])})"
            yield from self._suspect(lost.worker, key, lost.reason)
            self._require_a_worker(lost)
        if one is None or self.interrupt.count:
            return
        early = not lost.worker.confirmed and not one.excused
        one.excused = one.excused or early
        if lost.with_node or early:
            yield self._preempted(one, lost.reason)
        else:
            took = time.monotonic() - began
            yield from self._failed(one, lost.worker, KILLED, lost.reason, took)

    def _preempted(self, one: Try, reason: str) -> Event:
        event = Event("retried", one.task.key, one.attempt, PREEMPTED, reason)
        pause = min(LONGEST_PAUSE, 2.0 ** min(one.preemptions, 6) - 1)
        one.preemptions, one.not_before = one.preemptions + 1, time.monotonic() + pause
        self.again.append(one)
        return event

    def _bad_input(self, one: Try, worker: WorkerHandle, reason: str) -> Iterator[Event]:
        """Tries a trial once on another machine: only this one may lack a file."""
        where = f"{reason} on {worker.host or 'a machine'}"
        yield Event("retried", one.task.key, one.attempt, BAD_INPUT, where)
        one.bad_inputs += 1
        one.failed_on.add(worker.node)
        self.again.append(one)
        yield from self._suspect(worker, one.task.key, reason)

    def _cleared(self, key: str) -> Iterator[Event]:
        """Drops the suspicion that rests on a task which fails on other machines too."""
        for node, keys in self.suspects.items():
            keys.discard(key)
            if node in self.avoided - self.session.blind.keys() and len(keys) < SUSPECT:
                self.avoided.remove(node)
                yield from self._say(f"using the machine {self.names[node]} again: {key} is wrong")

    def _say(self, line: str) -> Iterator[Event]:
        """A line for the user, once."""
        if line not in self.said:
            self.said.add(line)
            yield Event("said", "", 0, reason=line)

    def _avoid_blind(self, lost: Lost) -> Iterator[Event]:
        """Avoids a machine that does not see the folder. BadInput if no other is left."""
        node = lost.worker.node
        self.avoided.add(node)
        if not self._usable():
            raise BadInput(lost.reason)
        yield from self._say(f"avoiding the machine {lost.worker.host or node}: {lost.reason}")

    def _usable(self) -> set[str]:
        """The machines that have something that trials need, and are not avoided."""
        cpu = self.resources.platform == "cpu"
        return {one.id for one in ray_cluster.nodes() if not cpu or one.cores} - self.avoided

    def _require_a_worker(self, lost: Lost) -> None:
        """BadInput where no worker starts on the only machine that is left."""
        node, answered = lost.worker.node, any(one.answered for one in self.session.workers)
        if len(self.suspects[node]) >= SUSPECT and not answered and self._usable() <= {node}:
            name = self.names.get(node, node)
            raise BadInput(
                f"no worker starts on {name}, the last machine, after {SUSPECT} attempts: "
                f"{lost.reason}; install there what this machine has, or name another cluster"
            )

    def _failed(
        self, one: Try, worker: WorkerHandle, code: int, reason: str, seconds: float
    ) -> Iterator[Event]:
        where = f"{reason} on {worker.host or 'a machine'}"
        killed, code = code == KILLED, local.BUG if code == KILLED else code
        final = one.is_last(killed)
        yield Event("finished" if final else "retried", one.task.key, one.attempt, code, where)
        if not final:
            one.kills, one.failures = one.kills + killed, one.failures + (not killed)
            one.not_before = time.monotonic()
            one.failed_on.add(worker.node)
            self.again.append(one)
        if seconds < SOON and not killed:
            yield from self._suspect(worker, one.task.key, reason)

    def _suspect(self, worker: WorkerHandle, key: str, reason: str) -> Iterator[Event]:
        """Avoids a machine on which different tasks fail soon, unless it is the last one."""
        node = worker.node
        self.suspects[node].add(key)
        self.names |= {one.id: one.host for one in ray_cluster.nodes()}
        others = self._usable() - {node}
        if len(self.suspects[node]) < SUSPECT or node in self.avoided or not others:
            return
        self.avoided.add(node)
        line = (
            f"avoiding the machine {worker.host or node}: {SUSPECT} trials in a row failed within "
            f"{SOON:g} s of their start, the last one with: {reason}"
        )
        yield Event("said", key, 0, reason=line)
