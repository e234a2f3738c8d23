"""The workers that a driver has on a Ray cluster: found again, created, watched and dismissed."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launch.errors import BadInput
from launch.runners import local, ray_cluster, ray_worker
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

    @property
    def free(self) -> bool:
        return self.answered and self.begin is None


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
        handles, dead = [], None
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
                    self._add(handle, status.spot.node, status.spot.key, status.running)

    @property
    def running(self) -> list[Held]:
        return [worker for worker in self.workers if worker.begin]

    def create(self, spot: Spot) -> None:
        """Starts a worker, which is not there at once."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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
                scheduling_strategy=NodeAffinitySchedulingStrategy(spot.node, soft=False),
                **spot.demand,
            )
            .remote(self.driver, spot, environment, os.getcwd(), seen)
        )
        self._add(handle, spot.node, spot.key, None)

    def _add(self, handle: Any, node: str, key: str, begin: Begin | None) -> None:
        worker = Held(handle, node, key, None, 0.0, begin=begin, idle_since=time.monotonic())
        self.workers.append(worker)
        self.ask(worker)

    def ask(self, worker: Held, begin: Begin | None = None) -> None:
        """Gives a worker a task, if any, and asks it how that ends."""
        patience = ray_worker.LEAVE_BUSY, ray_worker.LEAVE_IDLE
        worker.begin = begin or worker.begin
        worker.question = worker.actor.begin_and_wait.remote(self.driver, ASKED, begin, patience)
        worker.asked_at = time.monotonic()

    def freed(self, worker: Held) -> None:
        """Notes that the task of a worker has ended."""
        worker.begin, worker.idle_since = None, time.monotonic()

    def answers(self, seconds: float) -> Iterator[tuple[Held, Status] | Lost]:
        """What workers have answered, after at most `seconds`, and those that are lost."""
        import ray

        questions = {worker.question: worker for worker in self.workers}
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
            yield worker, status
        now = time.monotonic()
        for worker in set(self.workers) - {questions[question] for question in done}:
            most = ASKED + SILENT if worker.answered else STARTING
            if now - worker.asked_at > most and worker.question in questions:
                self.dismiss(worker)
                reason = f"no sign of life from {worker.host or 'it'} for {most:g} s"
                yield Lost(worker, reason, with_node=False)

    def _lost(self, worker: Held, error: str) -> Lost:
        self.workers.remove(worker)
        alive = {node.id for node in ray_cluster.nodes()}
        if worker.node not in alive or "its node has died" in error:
            return Lost(worker, f"its machine {worker.host} was lost", with_node=True)
        return Lost(worker, "its worker died", with_node=False)

    def dismiss(self, worker: Held) -> None:
        """Ends a worker, and whatever it runs, at once."""
        import ray

        if worker in self.workers:
            self.workers.remove(worker)
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.kill(worker.actor)

    def signal(self, number: int) -> None:
        """Sends a signal to the processes of all tasks that run."""
        for worker in self.running:
            worker.actor.signal.remote(number)

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
