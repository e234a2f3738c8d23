"""Trials on whole TPU slices: one worker for each host, which join in one jax program."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from launch.cluster.accelerators import TPUS, Accelerator, accelerator
from launch.runners.ray_worker import Reservation, Share
from launch.runners.tasks import Cluster

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


def type_of(kind: str) -> Accelerator:
    """The slice that `kind` names, 'v5e-16' or 'v5e:4x4'; ValueError for one that Ray cannot
    reserve."""
    found = accelerator(kind, flag="slice")
    if not found.tpu or not found.tpu.api:
        known = ", ".join(name for name, one in TPUS.items() if one.api)
        raise ValueError(f"slice={kind} is no TPU slice that Ray knows; use one of {known}")
    return found


def head_of(kind: Accelerator) -> str:
    """The resource that Ray gives to the first host of each slice of this type."""
    return f"TPU-{kind.api}-head"


def slices(there: Sequence[Node], kind: str) -> list[list[Node]]:
    """The hosts of each slice of this type that is complete, its head first."""
    wanted, groups = type_of(kind), {}
    for node in there:
        own = [key for key in node.resources if not _NO_NAMES.fullmatch(key)]
        if node.resources.get("TPU") and (name := node.labels.get(_NAME) or next(iter(own), "")):
            groups.setdefault(name, []).append(node)
    found, head = [], head_of(wanted)
    for _, hosts in sorted(groups.items()):
        hosts = sorted(hosts, key=lambda node: (head not in node.resources, _number(node), node.id))
        if head in hosts[0].resources and sum(map(_chips, hosts)) == wanted.chips:
            found.append(hosts)
    return found


def reservations(there: Sequence[Node], cluster: Cluster) -> Iterator[Reservation]:
    """Where trials of so many slices run; each has a worker on its first host, and `peers`."""
    complete = slices(there, cluster.slice)
    for first in range(0, len(complete) - cluster.slices + 1, cluster.slices):
        members = []
        for number, hosts in enumerate(complete[first : first + cluster.slices]):
            for host in hosts:
                taken = {"TPU": _chips(host)}
                if host is hosts[0]:
                    taken[head_of(type_of(cluster.slice))] = 1
                environment = multislice(complete[first][0].address, cluster.slices, number)
                demand = {"num_cpus": 1, "resources": taken}
                members.append(Reservation(host.id, Share(index=len(members)), demand, environment))
        yield Reservation(**vars(members[0]) | {"peers": tuple(members[1:])})


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
    devices = (
        type_of(cluster.slice).chips * cluster.slices if cluster.slice else max(cluster.gpus, 1)
    )
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
