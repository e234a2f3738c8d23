"""Temporary folders for what goes to a bucket. Those of processes that were killed are removed by
the next process of the same machine."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from data.buckets.lease import machine, started

_tidied: list[int] = []  # the process that has removed what others left


def scratch() -> Path:
    """A new folder in the machine's temporary folder; whoever asks for it removes it."""
    name, me = _here(), os.getpid()
    if me not in _tidied:
        _tidied.append(me)
        _remove_left(name)
    return Path(tempfile.mkdtemp(prefix=f"{name}-{me}-{started(me)}-")).resolve()


def _here() -> str:
    """How the folders of this boot and process namespace begin, within which a process number is
    unique."""
    return f"isoflop-{hashlib.sha256(machine().encode()).hexdigest()[:8]}"


def _remove_left(name: str) -> None:
    """Removes the folders of processes that have ended."""
    for left in Path(tempfile.gettempdir()).glob(f"{name}-*"):
        parts = left.name.split("-")
        if len(parts) == 5 and parts[2].isdecimal() and started(int(parts[2])) != parts[3]:
            shutil.rmtree(left, ignore_errors=True)
