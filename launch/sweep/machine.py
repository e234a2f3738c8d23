"""Where a sweep runs: a runner, what it has, and how many trials it may stack in one program."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from launch import runners
from launch.runners import Runner
from launch.runners.tasks import Cluster, Resources, Slot
from launch.sweep import groups
from launch.sweep.expand import Planned


@dataclass(frozen=True)
class Machine:
    """A runner with its resources. `most` trials of a group are trained stacked; 1: none are."""

    runner: Runner
    resources: Resources
    most: int

    def compiling_into(self, folder: Path, sweep: Path) -> "Machine":
        """This machine with another folder for compiled code, for the sweep in a folder."""
        resources = replace(self.resources, compiled=str(folder), sweep=str(sweep))
        return replace(self, resources=resources)

    @property
    def several(self) -> bool:
        """Whether the trials run on several machines, which must all have the same code."""
        return hasattr(self.runner, "adopted")

    def require_all_used(self, trials: Iterable[Planned]) -> None:
        """ValueError if a trial asks a cluster for more devices than its mesh has."""
        cluster = self.resources.cluster
        for planned in trials if self.several and (cluster.slice or cluster.gpus) else ():
            self.runner.require_all_used(cluster, planned.config.mesh.to_dict(), planned.id)

    def adopted(self) -> set[str]:
        """The trials that an earlier driver of the sweep has left running, on a cluster."""
        return getattr(self.runner, "adopted", lambda _: set())(self.resources)

    def slots(self, tasks: int) -> list[Slot]:
        """Where that many tasks would run."""
        return self.runner.slots(tasks, self.resources)


def machine(
    on: str, workers: int, population: str = "auto", cluster: Cluster | None = None
) -> Machine:
    """The machine of the flags --on, --workers and --population, and of those of a cluster;
    ValueError names a wrong one."""
    runner = runners.runner_named(on)
    given = cluster not in (None, Cluster())
    if given and not hasattr(runner, "adopted"):
        first = next(k for k, v in vars(cluster).items() if v != getattr(Cluster(), k))
        raise ValueError(
            f"{first} needs a cluster, and on={on} is not one; drop it, or add --on=ray"
        )
    resources = runner.resources(workers, cluster) if given else runner.resources(workers)
    if resources.cluster.slice:  # each trial is on several hosts
        population = "off"
    return Machine(runner, resources, groups.most(population, resources.platform))
