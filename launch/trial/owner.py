"""Which process trains in a trial's folder: the one that holds its lock."""

import fcntl
from dataclasses import replace
from pathlib import Path
from typing import IO

from data.atomic import lock
from scaling.ranking.trials import Sweep

LOCK = "lock"


def owner(workdir: Path) -> str:
    """The process that holds a trial's folder, as "process 12 on HOST"; "" if none does. Writes
    nothing."""
    try:
        with open(workdir / LOCK) as file:
            return named(file) if lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB) is False else ""
    except FileNotFoundError:
        return ""


def with_running(sweep: Sweep) -> Sweep:
    """The sweep with the status 'running' for trials that a process trains now."""
    trials = (
        replace(t, status="running") if t.status == "unfinished" and owner(t.folder) else t
        for t in sweep.trials
    )
    return replace(sweep, trials=tuple(trials))


def named(file: IO) -> str:
    """The owner as its lock file has it."""
    return file.read(200).strip() or "another process"
