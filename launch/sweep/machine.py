"""Where a sweep runs: a runner, what it has, and how many trials it may stack in one program."""

from dataclasses import dataclass, replace
from pathlib import Path

from launch import runners
from launch.runners import Runner
from launch.runners.tasks import Resources, Slot
from launch.sweep import groups


@dataclass(frozen=True)
class Machine:
    """A runner with its resources. `most` trials of a group are trained stacked; 1: none are."""

    runner: Runner
    resources: Resources
    most: int

    def compiling_into(self, folder: Path) -> "Machine":
        """This machine with another folder for compiled code."""
        return replace(self, resources=replace(self.resources, compiled=str(folder)))

    def slots(self, tasks: int) -> list[Slot]:
        """Where that many tasks would run."""
        return self.runner.slots(tasks, self.resources)


def machine(on: str, workers: int, population: str = "auto") -> Machine:
    """The machine of the flags --on, --workers and --population; ValueError names a wrong one."""
    runner = runners.runner_named(on)
    resources = runner.resources(workers)
    return Machine(runner, resources, groups.most(population, resources.platform))
