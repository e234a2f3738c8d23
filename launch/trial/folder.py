"""What the folder of a trial holds before it trains: which trial, how it ended, and a lock."""

import contextlib
import fcntl
import os
import re
import socket
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from data.atomic import lock
from launch.config import imports
from launch.errors import InUse, writing
from launch.files import AGAIN, read_json
from launch.trial import trunk
from launch.trial.identity import trial_difference
from launch.trial.owner import LOCK, named
from launch.trial.owner import owner as owner


def require_same(
    config: ConfigDict, resolved: ConfigDict, workdir: Path, given: Collection[str] = ()
) -> None:
    """ValueError if config.json or a checkpoint in `workdir` belongs to another trial; it names the
    key that the user set. `config` is `resolved` before it was resolved, `given` the keys of the
    command line. Checkpoints that older versions wrote name no trial and pass."""
    from train.checkpoint import (
        finished,
        saved_config,
    )  # slow to import; a sweep's parent does without

    file = workdir / "config.json"
    known = {str(file): read_json(file, AGAIN)}
    for path in finished(workdir / "checkpoints"):
        known[str(path)] = saved_config(path)
    for place, there in known.items():
        if there is None:
            continue
        try:
            differs = trial_difference(there, resolved, config, given)
            # A warmup in percent follows the duration.
            length = (*trunk.AFTER_THE_TRUNK, "schedule.warmup")
            longer = differs and not trial_difference(there, resolved, config, given, length)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{place} describes no trial ({error}); delete it and run again"
            ) from None
        if differs.startswith("config.imports_hash "):
            raise ValueError(
                f"--workdir={workdir} holds another config's run: {imports.difference(workdir)}"
            )
        if differs:
            remedy = "choose another --workdir"
            if longer and differs.startswith("config.train.duration "):
                remedy += _to_extend(resolved, workdir)
            where = "" if place == str(file) else f" ({place})"
            raise ValueError(
                f"--workdir={workdir} holds another config's run{where}: {differs}; {remedy}"
            )


def _to_extend(resolved: ConfigDict, workdir: Path) -> str:
    """How to train a finished run for longer, to follow "choose another --workdir"."""
    branch = resolved.copy_and_resolve_references()
    branch.checkpoint.trunk = str(workdir)
    try:
        trunk.check_schedule(branch)
        trunk.branch_until(branch)
    except ValueError:
        return (
            f" and add --config.train.init_from={workdir} to train on from its parameters with a "
            "fresh optimizer and schedule"
        )
    return (
        f" and add --config.checkpoint.trunk={workdir} to branch from its checkpoint before the "
        "decay, which gives the same numbers as training from step 0"
    )


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the lock of a trial's folder, which is created if needed. Files that a killed run left
    half-written are removed.

    InUse if another process holds it; BadInput if the folder cannot be written. Where the file
    system has no locks, a line on stderr says so.
    """
    with writing("workdir", workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / LOCK, "a+")
    with file:
        held = lock(file)
        if held is False:
            file.seek(0)
            raise InUse(
                f"--workdir={workdir} is in use by {named(file)}; wait until that run ends, or "
                "choose another --workdir"
            )
        if held is None:
            _warn(workdir)
        with writing("workdir", workdir):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        for left in workdir.glob("*.tmp"):
            if re.search(r"\.\d+\.tmp$", left.name):  # of data.atomic
                left.unlink(missing_ok=True)
        yield


def warn_without_locks(file: Path) -> None:
    """Prints a line if the file system of a sweep's file has no locks."""
    with open(file) as opened:
        if lock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB) is None:
            _warn(file.parent)


def _warn(workdir: Path) -> None:
    print(
        f"warning: --workdir={workdir} is on a file system without locks; make sure that no other "
        "process trains in it",
        file=sys.stderr,
    )
