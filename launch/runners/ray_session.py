"""The workers that a driver has on a Ray cluster: found again, created, watched and dismissed."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launch.errors import BadInput
from launch.runners import local, ray_cluster, ray_groups, ray_worker
from launch.runners.ray_gang import Gang
from launch.runners.ray_worker import Begin, RemoteWorker, Spot, Status
from launch.runners.tasks import Resources

ASKED = 5.0  # seconds that a question to a worker waits for the end of its task
SILENT = 30.0  # seconds without an answer after which a worker counts as frozen
ABSENT = 20.0  # seconds without a question after which a worker's driver counts as gone
STARTING = 300.0  # seconds that a worker may take to start: Ray takes the code to its machine


@dataclass(eq=False)
class Held:
    """A worker of this driver. `begin` is the attempt that it was given, until it has ended."""

    actor: Any
    node: str
    key: str  # of its spot
    question: Any  # the reference of a question that it has not answered
    asked_at: float
    host: str = ""
    answered: bool = False
    begin: Begin | None = None
    idle_since: float = 0.0
    gang: Gang | None = None  # of a trial that spans several hosts
    spot: Spot | None = None

    @property
    def members(self) -> "list[Held]":
        return self.gang.members if self.gang else [self]

    @property
    def free(self) -> bool:
        return self.begin is None and all(one.answered for one in self.members)


@dataclass(frozen=True)
class Lost:
    """A worker that has died or gone silent."""

    worker: Held
    reason: str
    with_node: bool  # whether its machine is gone, which is no failure of the task


class Session:
    """All workers of one sweep that are this driver's."""

    def __init__(self, resources: Resources):
        self.namespace = ray_cluster.namespace(resources.sweep)
        self.resources = resources
        self.driver = _driver()
        self.workers: list[Held] = []
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
                    found.append(self._held(handle, status.spot, status.running))
        self._adopted(found)

    def _adopted(self, found: list[Held]) -> None:
        """Adds the slots of adopted workers. Those of a trial on several hosts, which began with
        another coordinator, are ended: its folder is gone on with."""
        for worker in found:
            if worker.spot.group:
                self._kill(worker)
                ray_groups.remove(worker.spot.group)
            else:
                self.workers.append(worker)

    @property
    def running(self) -> list[Held]:
        return [worker for worker in self.workers if worker.begin]

    def create(self, spot: Spot) -> None:
        """Starts a worker, or one for each host of a slice, which are not there at once."""
        if not spot.peers:
            self.workers.append(self._start(spot))
            return
        spots, group = ray_groups.reserve(spot)
        members = [self._start(one, group, index) for index, one in enumerate(spots)]
        self._join(members)

    def _join(self, members: list[Held]) -> None:
        """Makes workers those of one slot."""
        gang = Gang(members)
        for worker in members:
            worker.gang = gang
        self.workers.append(members[0])

    def _start(self, spot: Spot, group: Any = None, index: int = 0) -> Held:
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
                scheduling_strategy=ray_groups.strategy(spot, group, index),
                **spot.demand,
            )
            .remote(self.driver, spot, environment, os.getcwd(), seen)
        )
        return self._held(handle, spot, None)

    def _held(self, handle: Any, spot: Spot, begin: Begin | None) -> Held:
        worker = Held(handle, spot.node, spot.key, None, 0.0, begin=begin, spot=spot)
        worker.idle_since = time.monotonic()
        self._ask(worker, None)
        return worker

    def ask(self, worker: Held, begin: Begin | None = None) -> None:
        """Gives a slot a task, if any, and asks its worker how that ends."""
        import ray

        if begin is None or worker.gang is None:
            worker.begin = begin or worker.begin
            self._ask(worker, begin)
            return
        try:
            port = ray.get(worker.actor.free_port.remote(), timeout=ASKED)
        except ray.exceptions.RayError:
            port = 0  # it is lost, as its next answer says
        address = next((n.address for n in ray_cluster.nodes() if n.id == worker.node), "")
        parts = worker.gang.parts(begin, f"{address}:{port}")
        worker.begin = begin
        for one, part in zip(worker.members, parts, strict=True):
            self._ask(one, part)

    def _ask(self, worker: Held, begin: Begin | None) -> None:
        patience = ray_worker.LEAVE_BUSY, ray_worker.LEAVE_IDLE
        worker.question = worker.actor.begin_and_wait.remote(self.driver, ASKED, begin, patience)
        worker.asked_at = time.monotonic()

    def freed(self, worker: Held) -> None:
        """Notes that the task of a worker has ended."""
        worker.begin, worker.idle_since = None, time.monotonic()

    def answers(self, seconds: float) -> Iterator[tuple[Held, Status] | Lost]:
        """What workers have answered, after at most `seconds`, and those that are lost."""
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
            try:
                status = ray.get(question)
            except ray.exceptions.RayActorError as error:
                yield self._lost(worker, " ".join(str(error).split()))
                continue
            worker.answered, worker.host = True, status.host
            if status.blind:
                raise blind(self.resources.sweep, status.host)
            if worker.gang and (worker.gang.members[0].begin or worker is not worker.members[0]):
                status = worker.gang.heard(worker, status)
                self._ask(worker, None)
            if status:
                yield worker.members[0], status
        now = time.monotonic()
        for worker in set(everyone) - {questions[question] for question in done}:
            most = ASKED + SILENT if worker.answered else STARTING
            if now - worker.asked_at > most and worker.question in questions:
                self.dismiss(worker.members[0])
                reason = f"no sign of life from {worker.host or 'it'} for {most:g} s"
                yield Lost(worker.members[0], reason, with_node=False)

    def _lost(self, worker: Held, error: str) -> Lost:
        first = worker.members[0]
        self.dismiss(first)
        alive = {node.id for node in ray_cluster.nodes()}
        if worker.node not in alive or "its node has died" in error:
            return Lost(first, f"its machine {worker.host} was lost", with_node=True)
        return Lost(first, "its worker died", with_node=False)

    def dismiss(self, worker: Held) -> None:
        """Ends the workers of a slot, and whatever they run, at once."""
        if worker in self.workers:
            self.workers.remove(worker)
        for one in worker.members:
            self._kill(one)
        if worker.spot.group:
            ray_groups.remove(worker.spot.group)

    def _kill(self, worker: Held) -> None:
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
