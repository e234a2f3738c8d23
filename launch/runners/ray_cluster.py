"""Connects to a Ray cluster, takes the code there, and says which slots its machines have."""

import collections
import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.checkout import COMMIT, ROOT, commit
from launch.runners import local, ray_slices
from launch.runners.ray_slices import Node
from launch.runners.ray_worker import Reservation, Share
from launch.runners.tasks import Cluster, Resources

ROOMS = ("configs", "data", "launch", "model", "scaling", "train")
UNREACHABLE = 5.0  # seconds
# Environment variables that change what a trial computes, or where it finds its files.
# None is a secret: Ray writes them into its logs. The machines have credentials of their own.
TAKEN = re.compile(
    r"(JAX|XLA|LIBTPU|TENSORSTORE|GCSFS_EXPERIMENTAL)_\w+|STORAGE_EMULATOR_HOST|ISOFLOP_LOCK"
    r"|AWS_(DEFAULT_REGION|REGION|ENDPOINT_URL|ENDPOINT_URL_S3)"
    r"|HF_(ENDPOINT|HUB_OFFLINE|DATASETS_OFFLINE)"
)
SECRET = re.compile(r".*(KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL).*")
_CPU_SLOTS_OF_ACCELERATORS = 1  # cores that Ray counts for a trial on a GPU or a slice


def connect(cluster: Cluster) -> None:
    """Joins the cluster and takes the code there, or starts Ray on this machine, which it says.
    ValueError in one line if the cluster cannot be reached, or has another version of Ray or
    Python."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("on=ray needs the package ray; pip install 'isoflop[ray]'")
    import ray

    if ray.is_initialized():
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS", "") or "local"
    _require_reachable(address)
    with _begun() if address == "local" else _with_code() as options:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            ray.shutdown()
            raise ValueError(_explained(address, error)) from None
    if address == "local":
        cores = options["num_cpus"]
        print(f"--on=ray: no --address, so Ray runs on this machine ({cores} cores)")


@contextlib.contextmanager
def _begun() -> Iterator[dict[str, Any]]:
    """How Ray starts on this machine: without a runtime environment, with which it could start no
    worker ahead of time. It starts in the checkout, since workers import from that folder first."""
    options = {"num_cpus": len(local.available_cores()), "include_dashboard": False}
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        options["num_gpus"] = 0
    with contextlib.chdir(ROOT):
        yield options


@contextlib.contextmanager
def _with_code() -> Iterator[dict[str, Any]]:
    """What the machines of a cluster get: a copy of the code, and the environment that trials
    need."""
    with tempfile.TemporaryDirectory() as staged:
        code(Path(staged))
        yield {"runtime_env": {"working_dir": staged, "env_vars": _environment()}}


def _explained(address: str, error: Exception) -> str:
    """What is wrong with a cluster, in one line."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text or "different version" in text:
        versions = re.findall(r"(?:Ray|Python): ?([\w.]+)", text)
        there, here = versions[:2], versions[2:4]
        if len(here) == 2:
            text = f"Ray {there[0]}, Python {there[1]} there; Ray {here[0]}, Python {here[1]} here"
        return f"address={address} has another version: {text}; install the same on both"
    if address == "auto":
        return (
            "address=auto finds no Ray on this machine; start it (`ray start --head`), or drop it"
        )
    return f"address={address} cannot be joined: {text}; is a Ray cluster of this version there?"


def _require_reachable(address: str) -> None:
    """ValueError, within seconds, where nothing listens."""
    found = re.fullmatch(r"(?:ray://)?(?P<host>[^/]+):(?P<port>\d+)", address)
    if not found and address not in ("auto", "local"):
        raise ValueError(
            f"address={address} is no address of a cluster; use auto, HOST:6379 or ray://HOST:10001"
        )
    if found:
        try:
            place = found["host"], int(found["port"])
            socket.create_connection(place, timeout=UNREACHABLE).close()
        except OSError as error:
            raise ValueError(
                f"address={address} cannot be reached ({error.strerror or error}); check the host, "
                "the port and the firewall, or drop --address to run Ray on this machine"
            ) from None


def code(folder: Path) -> None:
    """Copies what the trials need of this checkout, a few megabytes, into an empty folder."""
    for room in ROOMS:
        shutil.copytree(
            ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    (folder / COMMIT).write_text(commit() or "")


def _environment() -> dict[str, str]:
    """The environment variables that travel. The platform does not: a driver without accelerators
    may use machines that have them."""
    return {
        name: value
        for name, value in os.environ.items()
        if TAKEN.fullmatch(name) and not SECRET.fullmatch(name) and name != "JAX_PLATFORMS"
    }


def nodes() -> list[Node]:
    """The machines that are there now."""
    import ray

    return [
        Node(
            one["NodeID"],
            one["NodeManagerHostname"],
            one["Resources"],
            one.get("Labels", {}),
            one["NodeManagerAddress"],
        )
        for one in ray.nodes()
        if one["Alive"]
    ]


def dead_jobs() -> set[str]:
    """The ids of drivers that have ended."""
    from ray._private.state import jobs  # has no public name

    with contextlib.suppress(Exception):
        return {one["JobID"] for one in jobs() if one["IsDead"]}
    return set()


def is_pending(actor: str) -> bool:
    """Whether Ray has yet to start the actor with this id (hex), mostly for want of resources."""
    from ray._private.state import actors  # has no public name

    with contextlib.suppress(Exception):
        return actors(actor)["State"] in ("PENDING_CREATION", "DEPENDENCIES_UNREADY")
    return False


def namespace(folder: str) -> str:
    """The namespace of a sweep's workers, the same for every driver that names the folder."""
    name = folder if "://" in folder else str(Path(folder).resolve())
    return f"isoflop-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def platform(there: Sequence[Node], cluster: Cluster) -> str:
    """What the trials run on: what is asked for, otherwise GPUs if there are any. ValueError for
    an unknown platform, and where two flags ask for different ones."""
    implied = {"tpu": cluster.slice, "gpu": cluster.gpus, "cpu": cluster.cores}
    asked = [name for name, value in implied.items() if value]
    if cluster.platform:
        if cluster.platform not in implied:
            raise ValueError(f"platform={cluster.platform} is unknown; use cpu, gpu or tpu")
        if other := next((name for name in asked if name != cluster.platform), ""):
            flag = {"tpu": "slice", "gpu": "gpus", "cpu": "cores"}[other]
            raise ValueError(
                f"platform={cluster.platform} and {flag}={implied[other]} ask for different "
                "devices; drop one of the two"
            )
        return cluster.platform
    if asked and asked[0] != "cpu":
        return asked[0]
    found = {name for node in there for name, count in node.resources.items() if count}
    if cluster.cores or not found & {"GPU", "TPU"}:
        return "cpu"
    return "gpu" if "GPU" in found else "tpu"


def reservations(there: Sequence[Node], tasks: int, resources: Resources) -> list[Reservation]:
    """The slots of the machines for that many tasks, those of each machine one after another.

    Without --cores, the tasks of a machine divide its cores, as `local.slots` does. More workers
    than cores share them.
    """
    cluster, found = resources.cluster, []
    if cluster.slice:
        found = list(ray_slices.reservations(there, cluster))
        return found[: resources.workers or len(found)]
    if resources.platform != "cpu":
        found = list(_with_accelerators(there, resources))
        return found[: resources.workers or len(found)]
    total = sum(node.cores for node in there)
    for node in there:
        if not node.cores:
            continue
        owned = -(-resources.workers * node.cores // total) or node.cores
        count = min(-(-tasks * node.cores // total), owned)
        if cluster.cores:
            owned, count = node.cores, node.cores // cluster.cores
        for index in range(count):
            taken = cluster.cores or len(range(owned)[index::count])
            cores = min(taken, node.cores / count)
            cores = int(cores) if cores >= 1 else round(cores - 5e-5, 4)  # as Ray counts
            share = Share(owned, index, count, cluster.cores)
            found.append(Reservation(node.id, share, {"num_cpus": cores}))
    return _pinned(found[: resources.workers or len(found)], there)


def _pinned(found: Sequence[Reservation], there: Sequence[Node]) -> list[Reservation]:
    """The slots, pinned to cores on the machines of which they take all."""
    taken, cores = collections.Counter(), {node.id: node.cores for node in there}
    for one in found:
        taken[one.node] += one.demand["num_cpus"]
    whole = {node for node, count in taken.items() if count > cores[node] - 0.01}
    return [replace(one, share=replace(one.share, pinned=one.node in whole)) for one in found]


def _with_accelerators(there: Sequence[Node], resources: Resources) -> Iterator[Reservation]:
    cluster = resources.cluster
    name, each = ("GPU", cluster.gpus or 1) if resources.platform == "gpu" else ("TPU", 1)
    for node in there:
        for index in range(int(node.resources.get(name, 0)) // each):
            demand = {"num_cpus": _CPU_SLOTS_OF_ACCELERATORS}
            demand |= {"num_gpus": each} if name == "GPU" else {"resources": {"TPU": each}}
            yield Reservation(node.id, Share(index=index), demand)


def require_room(there: Sequence[Node], resources: Resources) -> None:
    """ValueError if no machine could ever run a trial."""
    if resources.cluster.wait_for_nodes or reservations(there, 1, resources):
        return
    cluster = resources.cluster
    if cluster.slice:
        complete = ray_slices.slices(there, cluster.slice)
        raise ValueError(
            f"slice={cluster.slice} slices={cluster.slices}: no trial could ever run; the cluster "
            f"has {len(complete)} complete slices of that type; ask for another, or add "
            "--wait_for_nodes"
        )
    wanted = f"gpus={cluster.gpus}" if cluster.gpus else f"cores={cluster.cores}"
    if cluster.platform and not (cluster.gpus or cluster.cores):
        wanted = f"platform={cluster.platform}"
    most = max((node.cores for node in there), default=0)
    gpus = max((int(node.resources.get("GPU", 0)) for node in there), default=0)
    raise ValueError(
        f"{wanted}: no machine of the cluster could ever run a trial; the {len(there)} there have "
        f"up to {most} cores and {gpus} GPUs; ask for less, or add --wait_for_nodes"
    )
