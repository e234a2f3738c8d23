"""Which process trains in a trial's folder: the one that holds its lock."""

import fcntl
from pathlib import Path
from typing import IO

from data.atomic import lock

LOCK = "lock"


def owner(workdir: Path) -> str:
    """The process that holds a trial's folder, as "process 12 on HOST"; "" if none does. Writes
    nothing."""
    try:
        with open(workdir / LOCK) as file:
            return named(file) if lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB) is False else ""
    except FileNotFoundError:
        return ""


def named(file: IO) -> str:
    """The owner as its lock file has it."""
    return file.read(200).strip() or "another process"
