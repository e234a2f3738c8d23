"""What the folder of a trial holds before it trains: which trial, how it ended, and a lock."""

import contextlib
import fcntl
import functools
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ml_collections import ConfigDict

from data.atomic import lock
from data.buckets import lease
from data.buckets.lease import LOCK, Lease
from data.buckets.times import of_environment
from data.files import is_remote
from launch.config import imports
from launch.errors import BadInput, InUse, writing
from launch.files import AGAIN, read_json
from launch.trial import trunk
from launch.trial.identity import trial_difference
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
def locked(workdir: Path) -> Iterator[Lease]:
    """Holds the lock of a trial's folder, which is created if needed, and yields it. Files that a
    killed run left half-written are removed.

    InUse if another process holds it; BadInput if the folder cannot be written, and where the file
    system has no locks that work. A lock in a bucket whose owner is silent is watched first, and
    taken once it is stale.
    """
    times, say = of_environment(), functools.partial(print, flush=True)
    if is_remote(workdir):
        with _refusing(workdir), writing("workdir", workdir):
            held = lease.take(workdir, times, say)
        try:
            yield held
        finally:
            held.release()
        return
    with writing("workdir", workdir):
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / LOCK, "a+")
    with file:
        held = lock(file)
        if held is False:
            raise _in_use(workdir, owner(workdir) or "another process")
        with open(workdir / LOCK, "r+") as other:  # NFS locks only what is open for writing
            _require(held is True and lock(other) is False, workdir)
        with _refusing(workdir):
            lease.require_silence(workdir, times, say)
        with writing("workdir", workdir):
            held = lease.FileLease(workdir, lease.this_process(), file, times)
        for left in workdir.glob("*.tmp"):
            if re.search(r"\.\d+\.tmp$", left.name):  # of data.atomic
                left.unlink(missing_ok=True)
        try:
            yield held
        finally:
            held.release()


@contextlib.contextmanager
def _refusing(workdir: Path) -> Iterator[None]:
    """Turns Held into InUse, which names the process."""
    try:
        yield
    except lease.Held as error:
        raise _in_use(workdir, str(error)) from None


def _in_use(workdir: Path, who: str) -> InUse:
    return InUse(
        f"--workdir={workdir} is in use by {who}; wait until that run ends, or "
        "choose another --workdir"
    )


def let_go(workdir: Path) -> str:
    """Removes the lock of a trial's folder in a bucket whose owner is dead or has been silent for
    too long, and returns who that was; "" if there is none. On this machine, locks end with their
    process."""
    return lease.break_stale(workdir, of_environment()) if is_remote(workdir) else ""


def require_locks(file: Path) -> None:
    """BadInput if the file system of a sweep's file has no locks that work."""
    if is_remote(file):
        return
    while True:
        with open(file, "r+") as opened, open(file, "r+") as other:
            if not os.path.sameopenfile(opened.fileno(), other.fileno()):
                continue  # another sweep has replaced the file in between
            held = lock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # False: another sweep of the folder is looking too.
            _require(held is False or (held is True and lock(other) is False), file.parent)
            return


def _require(works: bool, workdir: Path) -> None:
    if not works:
        raise BadInput(
            f"--workdir={workdir} is on a file system without working locks (flock), so two "
            "processes could train one trial; use a local disk, NFS 4, or a bucket (gs://…), or "
            "mount it with locks (Lustre: -o flock)"
        )
