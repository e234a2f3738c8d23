"""How often a task of a cluster is tried, and what has become of it so far."""

from dataclasses import dataclass, field

from launch.runners.tasks import Task

RETRIES = 3  # of a task that fails
KILLS = 10
"""Retries of a task whose worker is killed or frozen. It may be the kernel that kills it,
for want of memory, which another attempt does not mend."""


@dataclass
class Try:
    """A task with its history: failures, deaths of its worker, preemptions, and the machines of the
    first two."""

    task: Task
    failures: int = 0
    kills: int = 0
    preemptions: int = 0
    bad_inputs: int = 0
    excused: bool = False  # whether a worker died before it had said that it runs this
    failed_on: set[str] = field(default_factory=set)
    not_before: float = 0.0

    @property
    def attempt(self) -> int:
        return 1 + self.failures + self.kills + self.preemptions + self.bad_inputs

    def is_last(self, killed: bool) -> bool:
        """Whether no other attempt follows this one, which failed or was killed."""
        return self.kills == KILLS if killed else self.failures == RETRIES
