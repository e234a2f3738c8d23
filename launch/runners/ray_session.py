"""The workers that a driver has on a Ray cluster: found again, created, watched and dismissed."""

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launch.errors import BadInput
from launch.runners import local, ray_cluster, ray_gang, ray_groups, ray_worker
from launch.runners.ray_gang import Gang
from launch.runners.ray_worker import Begin, RemoteWorker, Reservation, Status
from launch.runners.tasks import Resources

ASKED = 5.0  # seconds that a question to a worker waits for the end of its task
RECENT = 15.0  # seconds since its last answer within which a worker takes a task
SILENT = 30.0  # seconds without an answer after which a worker counts as frozen
ABSENT = 20.0  # seconds without a question after which a worker's driver counts as gone
PENDING = 60.0  # seconds after which the user learns that a worker waits to be started
LOOK_AGAIN = 60.0  # seconds in which a machine may come to see the folder
STARTING = 300.0  # seconds that a worker may take to start: Ray takes the code to its machine

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(eq=False)
class WorkerHandle:
    """A worker of this driver. `begin` is the attempt that it was given, until it has ended."""

    actor: Any
    node: str
    key: str  # of its reservation
    question: Any  # the reference of a question that it has not answered
    asked_at: float
    host: str = ""
    answered: bool = False
    heard_at: float = 0.0  # when it last answered
    given_at: float = 0.0  # when it was given `begin`
    blind_since: float = 0.0  # when it first said that it does not see the folder
    begin: Begin | None = None
    idle_since: float = 0.0
    gang: Gang | None = None  # of a trial that spans several hosts
    reservation: Reservation | None = None

    @property
    def members(self) -> "list[WorkerHandle]":
        return self.gang.members if self.gang else [self]

    @property
    def free(self) -> bool:
        recent = time.monotonic() - RECENT
        return self.begin is None and all(
            one.answered and one.heard_at > recent for one in self.members
        )

    @property
    def confirmed(self) -> bool:
        """Whether it has answered since it was given its task."""
        return self.heard_at >= self.given_at


@dataclass(frozen=True)
class Lost:
    """A worker that has died or gone silent."""

    worker: WorkerHandle
    reason: str
    with_node: bool  # whether its machine is gone, which is no failure of the task
    blind: bool = False  # whether its machine does not see the folder


class Session:
    """All workers of one sweep that are this driver's."""

    def __init__(self, resources: Resources):
        self.namespace = ray_cluster.namespace(resources.sweep)
        self.resources = resources
        self.driver = _driver()
        self.workers: list[WorkerHandle] = []
        self.blind: dict[str, str] = {}  # machines that do not see the folder, with their names
        self.adopt()

    def adopt(self) -> None:
        """Takes over the workers of the sweep's earlier drivers that are gone."""
        import ray

        mine = {worker.actor._actor_id for worker in self.workers}
        handles, dead, found = [], None, []
        for one in ray.util.list_named_actors(all_namespaces=True):
            if one["namespace"] == self.namespace:
                with contextlib.suppress(ValueError):
                    handles.append(ray.get_actor(one["name"], namespace=self.namespace))
        handles = [handle for handle in handles if handle._actor_id not in mine]
        for handle in handles:
            with contextlib.suppress(ray.exceptions.RayError):
                status = ray.get(handle.status.remote(), timeout=ASKED)
                dead = ray_cluster.dead_jobs() if dead is None else dead
                gone = status.owner.partition("/")[0] in dead or status.absent > ABSENT
                if gone and ray.get(handle.claim.remote(self.driver, status.owner), timeout=ASKED):
                    worker = self._held(handle, status.reservation, status.running)
                    found.append((worker, status))
        self._adopted(found)

    def _adopted(self, found: list[tuple[WorkerHandle, Status]]) -> None:
        """Adds the slots of adopted workers. A trial on several hosts of which one is missing
        cannot go on: its other workers are ended."""
        groups: dict[str, list[tuple[WorkerHandle, Status]]] = {}
        for worker, status in found:
            if worker.reservation.group:
                groups.setdefault(worker.reservation.group, []).append((worker, status))
            else:
                self.workers.append(worker)
        for group, members in groups.items():
            if gang := ray_gang.regained(members):
                self.workers.append(gang.members[0])
                continue
            for worker, _ in members:
                self._kill(worker)
            ray_groups.remove(group)

    @property
    def running(self) -> list[WorkerHandle]:
        return [worker for worker in self.workers if worker.begin]

    def create(self, reservation: Reservation) -> None:
        """Starts a worker, or one for each host of a slice, which are not there at once."""
        if not reservation.peers:
            self.workers.append(self._start(reservation))
            return
        reservations, group = ray_groups.reserve(reservation)
        members = [self._start(one, group, index) for index, one in enumerate(reservations)]
        self._join(members)

    def _join(self, members: list[WorkerHandle]) -> None:
        """Makes workers those of one slot."""
        gang = Gang(members)
        for worker in members:
            worker.gang = gang
        self.workers.append(members[0])

    def _start(self, reservation: Reservation, group: Any = None, index: int = 0) -> WorkerHandle:
        import ray

        resources = self.resources
        environment = local.compilation_cache(resources.compiled)
        if resources.platform == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
        seen = f"{resources.sweep}/sweep.json" if resources.sweep else ""
        handle = (
            ray.remote(RemoteWorker)
            .options(
                name=secrets.token_hex(8),
                namespace=self.namespace,
                lifetime="detached",
                max_concurrency=8,
                max_restarts=0,
                scheduling_strategy=ray_groups.strategy(reservation, group, index),
                **reservation.demand,
            )
            .remote(self.driver, reservation, environment, os.getcwd(), seen)
        )
        return self._held(handle, reservation, None)

    def _held(self, handle: Any, reservation: Reservation, begin: Begin | None) -> WorkerHandle:
        worker = WorkerHandle(
            handle,
            reservation.node,
            reservation.key,
            None,
            0.0,
            begin=begin,
            reservation=reservation,
        )
        worker.idle_since = time.monotonic()
        self._ask(worker, None, seconds=0.0)  # so that it takes a task as soon as it is there
        return worker

    def renew(self) -> None:
        """Asks idle workers whether they are still there; until they answer, none is free."""
        for worker in self.workers:
            for one in worker.members if worker.begin is None else ():
                if one.answered:
                    one.heard_at = 0.0
                    self._ask(one, None, seconds=0.0)

    def ask(self, worker: WorkerHandle, begin: Begin | None = None) -> None:
        """Gives a slot a task, if any, and asks its worker how that ends."""
        import ray

        if begin is None or worker.gang is None:
            if begin:
                worker.begin, worker.given_at = begin, time.monotonic()
            self._ask(worker, begin)
            return
        try:
            port = ray.get(worker.actor.free_port.remote(), timeout=ASKED)
        except ray.exceptions.RayError:
            port = 0  # it is lost, as its next answer says
        address = next((n.address for n in ray_cluster.nodes() if n.id == worker.node), "")
        parts = worker.gang.parts(begin, f"{address}:{port}")
        worker.begin, worker.given_at = begin, time.monotonic()
        for one, part in zip(worker.members, parts, strict=True):
            self._ask(one, part)

    def _ask(self, worker: WorkerHandle, begin: Begin | None, seconds: float = ASKED) -> None:
        patience = ray_worker.LEAVE_BUSY, ray_worker.LEAVE_IDLE
        busy = worker.gang.is_busy(worker) if worker.gang else worker.begin is not None
        worker.question = worker.actor.begin_and_wait.remote(
            self.driver, seconds, begin, patience, busy
        )
        worker.asked_at = time.monotonic()

    def freed(self, worker: WorkerHandle) -> None:
        """Notes that the task of a worker has ended."""
        worker.begin, worker.idle_since = None, time.monotonic()

    def answers(self, seconds: float) -> Iterator[tuple[WorkerHandle, Status] | Lost | str]:
        """What workers have answered, after at most `seconds`, those that are lost, and lines for
        the user."""
        import ray

        everyone = [one for worker in self.workers for one in worker.members]
        questions = {worker.question: worker for worker in everyone}
        if not questions:
            time.sleep(seconds)
            return
        ray.wait(list(questions), timeout=seconds)
        done, _ = ray.wait(list(questions), num_returns=len(questions), timeout=0)
        for question in done:
            worker = questions[question]
            if worker.members[0] not in self.workers:  # dismissed a moment ago
                continue
            try:
                status = ray.get(question)
            except ray.exceptions.RayError as error:
                yield self._lost(worker, error)
                continue
            yield from self._heard(worker, status)
        waiting = [one for question, one in questions.items() if question not in set(done)]
        for worker in waiting:
            if worker.members[0] in self.workers:
                yield from self._silent(worker)

    def _heard(self, worker: WorkerHandle, status: Status) -> Iterator:
        """What an answer means for its slot."""
        worker.host, worker.heard_at = status.host, time.monotonic()
        if status.blind and status.owner == self.driver:
            worker.blind_since = worker.blind_since or time.monotonic()
            if time.monotonic() - worker.blind_since < LOOK_AGAIN:
                self._ask(worker, None)
                return
            self.dismiss(worker.members[0])
            self.blind[worker.node] = status.host
            yield Lost(worker, str(blind(self.resources.sweep, status.host)), False, blind=True)
            return
        worker.answered = True
        gang = worker.gang
        if gang and status.owner == self.driver:
            if gang.members[0].begin or worker is not gang.members[0]:
                status = gang.heard(worker, status)
                self._ask(worker, None)
        if status:
            yield worker.members[0], status

    def _silent(self, worker: WorkerHandle) -> Iterator:
        """What it means that a worker has not answered yet."""
        waited = time.monotonic() - worker.asked_at
        if not worker.answered and waited > PENDING:
            if ray_cluster.is_pending(worker.actor._actor_id.hex()):
                worker.asked_at = time.monotonic()
                yield (
                    f"a worker has not started for {PENDING:g} s: its cores or devices are taken "
                    "by something else on the cluster, or Ray still takes the code there"
                )
                return
        most = ASKED + SILENT if worker.answered else STARTING
        if waited > most:
            self.dismiss(worker.members[0])
            reason = f"no sign of life from {worker.host or 'it'} for {most:g} s"
            yield Lost(worker.members[0], reason, with_node=False)

    def _lost(self, worker: WorkerHandle, error: Exception) -> Lost:
        import ray

        first = worker.members[0]
        self.dismiss(first)
        alive, text = {node.id for node in ray_cluster.nodes()}, str(error)
        gone = worker.node not in alive or "its node has died" in " ".join(text.split())
        if gone or isinstance(error, ray.exceptions.ActorUnschedulableError):
            return Lost(first, f"its machine {worker.host or worker.node} was lost", with_node=True)
        lines = [line.strip() for line in _COLOURS.sub("", text).splitlines() if line.strip()]
        last = lines[-1] if lines else type(error).__name__
        return Lost(first, f"its worker died: {last}", with_node=False)

    def dismiss(self, worker: WorkerHandle) -> None:
        """Ends the workers of a slot, and whatever they run, at once."""
        if worker in self.workers:
            self.workers.remove(worker)
        for one in worker.members:
            self._kill(one)
        if worker.reservation.group:
            ray_groups.remove(worker.reservation.group)

    def _kill(self, worker: WorkerHandle) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.kill(worker.actor)

    def signal(self, number: int) -> None:
        """Sends a signal to the processes of all tasks that run."""
        for worker in self.running:
            for one in worker.members:
                one.actor.signal.remote(number)

    def close(self) -> None:
        """Ends all workers."""
        for worker in list(self.workers):
            self.dismiss(worker)


def blind(sweep: str, host: str) -> BadInput:
    """What to say where a machine does not see the folder of the sweep."""
    return BadInput(
        f"--workdir={sweep} is not there on {host}; give a folder that all machines share, such as "
        "gs://BUCKET/SWEEP"
    )


def _driver() -> str:
    """A name of this driver: its job, which Ray knows to be alive, and itself."""
    import ray

    return f"{ray.get_runtime_context().get_job_id()}/{os.getpid()}/{secrets.token_hex(4)}"
