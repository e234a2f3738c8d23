"""Runners: where the trials of a sweep run. `isoflop sweep --on=NAME` chooses one."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from launch.runners import local, ray
from launch.runners.tasks import Event, Interrupt, Resources, Slot, Task


class Runner(Protocol):
    """What a runner provides; a module with these three functions is one.

    A runner of a cluster also takes `resources(workers, cluster)`, and may have two more:
    `adopted(resources)`, the keys of tasks that workers of an earlier driver of the folder still
    run, whose ends `run` reports, and `require_all_used(cluster, mesh, trial)`, which refuses a
    trial whose mesh leaves devices idle.
    """

    def resources(self, workers: int) -> Resources:
        """What there is to run on, asked once per sweep. `workers` tasks at a time; 0: as many as
        there is room for."""

    def slots(self, tasks: int, resources: Resources) -> list[Slot]:
        """Where that many tasks would run; one that is free takes the next task."""

    def run(
        self,
        function: str,
        tasks: Iterable[Task | None],
        resources: Resources,
        interrupt: Interrupt,
    ) -> Iterator[Event | None]:
        """Runs `function` ('module:name') on the arguments of every task, in order. A task is taken
        from `tasks` when there is room for it and not before: a search asks for it then. Where the
        next task depends on one that runs, `tasks` yields None, and is asked again later.

        Yields the events of each task, and None several times a second so that a display can move.
        Once `interrupt.count` is above 0 no further task starts and the running ones save and
        stop; above 1 they are killed. A task that is stopped yields no 'finished' event.
        """


RUNNERS: dict[str, Runner] = {"local": local, "ray": ray}


def runner_named(name: str) -> Runner:
    """The runner of `--on=NAME`; ValueError lists the known ones."""
    if name not in RUNNERS:
        raise ValueError(f"on={name} is unknown; use one of {', '.join(RUNNERS)}")
    return RUNNERS[name]
