"""Machines for sweeps and large runs. `isoflop cluster up --on=NAME` chooses who provides them."""

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from launch.cluster import skypilot, slurm
from launch.cluster.kubernetes import provider as gke
from launch.cluster.queued import provider as queued
from launch.cluster.record import Record
from launch.cluster.request import Plan, Request


class Provider(Protocol):
    """What provides machines; a module with these names is one. Every error is a ValueError."""

    USES: Collection[str]
    """The options that it reads; any other is refused."""
    NEEDS: Sequence[str]
    """The options that must be given."""
    JOBS: Sequence[str]
    """The values of --job that it can do."""
    CARRIES_CODE: bool
    """Whether its machines install the checkout from an archive in --workdir."""

    ENDS: bool
    """Whether `follow` stays until the command has ended, after which the machines are deleted."""

    def check(self, request: Request) -> None:
        """Refuses what it cannot do. Asks nobody: --dry_run works without an account."""

    def plan(self, request: Request) -> Plan:
        """What `create` would do."""

    def preflight(self, request: Request) -> None:
        """Asks whether it can be done: tools, credentials, permissions, names."""

    def resolve(self, request: Request) -> dict[str, str]:
        """The options by which `down` finds what `up` creates, where they are not given: what is
        current now, such as the context of kubectl."""

    def create(self, request: Request, record: Record, say: Callable[[str], None]) -> None:
        """Creates what the record does not say is there, and records each before."""

    def follow(
        self, request: Request, record: Record, say: Callable[[str], None], stopped: Callable
    ) -> int | None:
        """Stays with the cluster while it needs that: the exit code of its command, or 0; None if
        `stopped`."""

    def state(self, request: Request, record: Record) -> list[str]:
        """What there is of it now, as lines."""

    def delete(self, request: Request, record: Record, say: Callable[[str], None]) -> list[str]:
        """Deletes what the record names and what carries the id of the cluster, and takes it from
        the record. Returns what was created, is not found, and may yet run somewhere, as lines."""


PROVIDERS: dict[str, Provider] = {"sky": skypilot, "gke": gke, "slurm": slurm, "tpu": queued}


def provider_named(name: str | None) -> Provider:
    """The provider of --on=NAME; ValueError lists the known ones."""
    if name not in PROVIDERS:
        given = f"on={name} is unknown" if name else "--on is not given"
        raise ValueError(f"{given}; use one of {', '.join(PROVIDERS)}")
    return PROVIDERS[name]
