"""Which process trains in a trial's folder: the one that holds its lock."""

import fcntl
import time
from dataclasses import replace
from pathlib import Path

from data.atomic import lock
from data.buckets import lease
from data.buckets.lease import LOCK, Times
from data.buckets.times import of_environment
from data.files import is_remote
from scaling.ranking.trials import Sweep


def owner(workdir: Path, times: Times | None = None) -> str:
    """The process that holds a trial's folder, as "process 12 on HOST", with how long it has been
    silent where it has missed a heartbeat; "" if none does. Writes nothing.

    In a bucket, a lock counts as nobody's once its process is dead or has been silent for
    `times.ttl` seconds, as observed over several calls.
    """
    times = times or of_environment()
    if is_remote(workdir):
        held = lease.watched(workdir, times)
        if held is None or lease.stale(held[0], held[2], times):
            return ""
        return _named(held[0], held[2], times)
    try:
        with open(workdir / LOCK, "rb") as file:
            if lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB) is not False:
                return ""
            silent = time.time() - (workdir / LOCK).stat().st_mtime
            return _named(lease.parsed(file.read()), silent, times)
    except FileNotFoundError:
        return ""


def seen(workdir: Path) -> str:
    """As `owner`, for display: a lock in a bucket is judged by its age on the server's clock, so
    one question shows whether its process still beats."""
    times = of_environment()
    if not is_remote(workdir):
        return owner(workdir, times)
    held = lease.seen(workdir, times)
    return "" if held is None or lease.stale(*held, times) else _named(*held, times)


def _named(owner: lease.Owner, silent: float, times: Times) -> str:
    return str(owner) + (f", silent for {silent:.0f} s" if silent > 2 * times.beat else "")


def with_running(sweep: Sweep) -> Sweep:
    """The sweep with the status 'running' for trials that a process trains now."""
    trials = (
        replace(t, status="running") if t.status == "unfinished" and seen(t.folder) else t
        for t in sweep.trials
    )
    return replace(sweep, trials=tuple(trials))
