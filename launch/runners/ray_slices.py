"""Trials on whole TPU slices: one worker for each host, which join in one jax program."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from launch.runners.ray_worker import Place, Spot
from launch.runners.tasks import Cluster

CORES_OF_A_CHIP = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5litepod": 1, "v6e": 1}
"""Generation → what the number of a slice's type counts of each chip."""
WAIT = 120  # seconds that the hosts of a trial wait for each other
_NAME = "ray.io/tpu-slice-name"
_NO_NAMES = re.compile(r"CPU|GPU|TPU|memory|object_store_memory|node:.*|accelerator_type:.*|TPU-.*")


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    host: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]
    address: str = ""

    @property
    def cores(self) -> int:
        return int(self.resources.get("CPU", 0))


def chips(kind: str) -> int:
    """The chips of a slice of this type; ValueError for an unknown one."""
    name, _, count = kind.rpartition("-")
    if name not in CORES_OF_A_CHIP or not count.isdecimal() or not int(count):
        known = ", ".join(f"{one}-N" for one in CORES_OF_A_CHIP)
        raise ValueError(f"slice={kind} is no type of a TPU slice; use one of {known}")
    return int(count) // CORES_OF_A_CHIP[name]


def slices(there: Sequence[Node], kind: str) -> list[list[Node]]:
    """The hosts of each slice of this type that is complete, its head first."""
    wanted, groups = chips(kind), {}
    for node in there:
        own = [key for key in node.resources if not _NO_NAMES.fullmatch(key)]
        if node.resources.get("TPU") and (name := node.labels.get(_NAME) or next(iter(own), "")):
            groups.setdefault(name, []).append(node)
    found, head = [], f"TPU-{kind}-head"
    for _, hosts in sorted(groups.items()):
        hosts = sorted(hosts, key=lambda node: (head not in node.resources, _number(node), node.id))
        if head in hosts[0].resources and sum(map(_chips, hosts)) == wanted:
            found.append(hosts)
    return found


def spots(there: Sequence[Node], cluster: Cluster) -> Iterator[Spot]:
    """Where trials of so many slices run; each has a worker on its first host, and `peers`."""
    complete = slices(there, cluster.slice)
    for first in range(0, len(complete) - cluster.slices + 1, cluster.slices):
        members = []
        for number, hosts in enumerate(complete[first : first + cluster.slices]):
            for host in hosts:
                taken = {"TPU": _chips(host)}
                if host is hosts[0]:
                    taken[f"TPU-{cluster.slice}-head"] = 1
                environment = multislice(complete[first][0].address, cluster.slices, number)
                demand = {"num_cpus": 1, "resources": taken}
                members.append(Spot(host.id, Place(index=len(members)), demand, environment))
        yield Spot(**vars(members[0]) | {"peers": tuple(members[1:])})


def multislice(address: str, slices: int, number: int) -> Mapping[str, str]:
    """The environment in which libtpu finds the other slices of a trial; {} for one slice."""
    if slices == 1:
        return {}
    from ray.util.tpu import get_tpu_coordinator_env_vars

    return get_tpu_coordinator_env_vars(address, slices, number)


def member(coordinator: str, count: int, index: int, function: str, args: tuple) -> int:
    """The exit code of one host's part of a trial: 42 if another host is lost."""
    import importlib

    from launch.trial import distributed

    module, name = function.split(":")

    def work() -> int:
        return int(getattr(importlib.import_module(module), name)(*args))

    return distributed.run(distributed.Cluster(coordinator, count, index), work, WAIT)


def require_all_used(cluster: Cluster, mesh: Mapping[str, int], trial: str) -> None:
    """ValueError if a trial's mesh leaves hosts idle."""
    devices = chips(cluster.slice) * cluster.slices if cluster.slice else max(cluster.gpus, 1)
    sizes, used = dict(mesh), 1
    for size in sizes.values():
        used *= size
    if min(sizes.values()) > 0 and used < devices:
        given = f"slice={cluster.slice} slices={cluster.slices}" if cluster.slice else "gpus"
        shown = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
        raise ValueError(
            f"{given} gives a trial {devices} devices, but {trial} needs {used} ({shown}); ask for "
            "a smaller slice, or let one axis be -1"
        )


def _chips(node: Node) -> int:
    return int(node.resources["TPU"])


def _number(node: Node) -> int:
    """The number of a host in its slice, as Ray labels it."""
    return int(node.labels.get("ray.io/tpu-worker-id", 0))
