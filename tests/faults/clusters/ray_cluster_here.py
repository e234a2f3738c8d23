"""A Ray cluster of several raylets on this machine, and the processes of a sweep there."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[3]
SHORTER = (
    "from launch.runners import ray_session, ray_worker\n"
    "ray_session.SILENT, ray_session.ABSENT, ray_worker.LEAVE_BUSY = {silent}, 10.0, {alone}\n"
    "import sys; from launch.__main__ import main; sys.exit(main(sys.argv[1:]))"
)
"""A sweep that takes a worker for frozen after `silent` seconds; its workers end after `alone`."""


@contextlib.contextmanager
def cluster(nodes: int, cores: int = 1, **of_each: dict) -> Iterator:
    """A head without cores and `nodes` machines, which are processes here; `address` is its own."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        made.machines = [add(made, cores, **of_each) for _ in range(nodes)]
        yield made
    finally:
        made.shutdown()


def add(cluster, cores: int = 1, **more):
    """Adds a machine."""
    return cluster.add_node(num_cpus=cores, object_store_memory=80_000_000, **more)


def sweep(
    cluster,
    config: Path | str,
    workdir: Path | str,
    *flags: str,
    silent: float = 15.0,
    alone: float = 60.0,
    cwd: Path = ROOT,
    log: Path | None = None,
) -> subprocess.Popen:
    """A driver, with its output in `log`, or in driver.txt beside the folder."""
    command = [
        sys.executable,
        "-c",
        SHORTER.format(silent=silent, alone=alone),
        "sweep",
        f"--config={config}",
    ]
    command += [f"--workdir={workdir}", "--on=ray", f"--address={cluster.address}", *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(log or Path(workdir).parent / "driver.txt", "a") as out:
        return subprocess.Popen(command, cwd=cwd, env=environment, stdout=out, stderr=out)


def workers(cluster) -> list[tuple[psutil.Process, psutil.Process]]:
    """(actor, the process of its tasks) for each worker of a sweep on the cluster's machines."""
    found = []
    for node in cluster.list_all_nodes():
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            raylet = next(
                one.process for one in node.all_processes.get("raylet", ()) if one.process
            )
            for actor in psutil.Process(raylet.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "RemoteWorker" in " ".join(actor.cmdline()):
                        own = [
                            one
                            for one in actor.children()
                            if "spawn_main" in " ".join(one.cmdline())
                        ]
                        found += [(actor, own[0])] if own else []
    return found


def results(workdir: Path) -> dict[str, str]:
    """The status in each result.json."""
    files = workdir.glob("*/result.json")
    return {file.parent.name: json.loads(file.read_text())["status"] for file in files}


def until(
    condition: Callable[[], object], seconds: float = 120, driver: subprocess.Popen | None = None
) -> None:
    """Waits for the condition; AssertionError if it does not hold in time, or the driver ends."""
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest, "waited in vain"
        assert driver is None or driver.poll() is None, "the driver has ended"
        time.sleep(0.1)


def kill(process: psutil.Process, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process that may be gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
