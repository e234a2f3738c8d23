"""The folder of a result: whether it is there, and, for one in a bucket, how it gets there.

    OUT/text/part-*.jsonl.zst   what is left
        cleaning.json           written last: the result is complete
        .work/identity          while it is made: the hash of its config and input

Work is done in a folder on this machine. For OUT in a bucket it is beside the mirrors of
`data/buckets/copies.py`, which are folders within folders, as in the bucket:

    MIRROR/cleaning/HASH OF OUT/

It is removed at the end, with nothing of another result. Machines that make the same result write
the same files.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data.atomic import lock, require_writable, write_atomic
from data.buckets import copies
from data.files import is_remote
from data.local import parse_object

ABOUT, BEGUN, LOCK = "cleaning.json", ".work/identity", ".work/lock"


def place_of(out: Path) -> Path:
    """The folder on this machine where a result is made."""
    if not is_remote(out):
        return out
    return copies.mirror() / "cleaning" / hashlib.sha256(os.fspath(out).encode()).hexdigest()[:16]


def require_place(out: Path) -> None:
    """ValueError if the folder on this machine for a result that is to be made in a bucket cannot
    be written."""
    if not is_remote(out) or (out / ABOUT).is_file():
        return
    place = place_of(out)
    try:
        require_writable(place)
    except OSError as error:
        raise ValueError(
            f"the work for out={out} cannot be written to {place} ({error.strerror}); set "
            f"{copies.PLACE} to a folder on another disk"
        ) from error


def finished(out: Path, identity: str, name: str) -> dict[str, Any] | None:
    """The result that a folder has; None if it is still to be made, and the folder is then marked
    as one for it. ValueError, which begins with `name`, if it is of another config or input."""
    other = f"{name} holds the result of another config, input or version; name another folder"
    if (out / ABOUT).is_file():
        about = parse_object((out / ABOUT).read_bytes())
        if about.get("identity") != identity:
            raise ValueError(other)
        return about
    begun = out / BEGUN
    if begun.is_file() and begun.read_text() != identity:
        raise ValueError(other.replace("the result", "an unfinished result") + ", or remove it")
    if not begun.is_file():
        if (out / "text").is_dir() and any((out / "text").iterdir()):
            raise ValueError(f"{name} has a folder text/ with files in it; name another folder")
        begun.parent.mkdir(parents=True, exist_ok=True)
        if not is_remote(out):
            write_atomic(begun, identity.encode())
        elif not begun.create_bytes(identity.encode()):  # another machine has begun
            return finished(out, identity, name)
    return None


def made(
    out: Path,
    identity: str,
    make: Callable[[], dict[str, Any]],
    progress: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """What is known of a result that `make` makes in its folder here, unless another process did.
    The lock on that folder keeps other processes out."""
    place = place_of(out)
    for folder in (place / ".work", place / "text"):
        folder.mkdir(parents=True, exist_ok=True)
    with open(place / LOCK, "w") as file:
        if lock(file) is False:
            raise ValueError(f"out={out} is in use by another process; wait for it, or end it")
        about = finished(out, identity, f"out={out}")
        if about is not None:  # since then, by a process that had the lock
            return about
        if is_remote(out):
            about = finished(place, identity, f"{place}, where out={out} is made,")
        if about is None:
            about = make()
            finish(place, about)
        if is_remote(out):
            upload(place, out, progress)
            finish(out, about)
    return about


def finish(out: Path, about: Mapping[str, Any]) -> None:
    """Writes what is known of a result, after which it is complete."""
    write_atomic(out / ABOUT, (json.dumps(about, indent=1) + "\n").encode())


def upload(folder: Path, out: Path, progress: Callable[[str, int, int], None]) -> None:
    """Uploads the text of a complete result. Files that are there with their size were uploaded by
    a run that was stopped."""
    there = {path.name: about.st_size for path, about in (out / "text").entries()}
    sizes = {path: path.stat().st_size for path in sorted((folder / "text").iterdir())}
    done = 0
    for path, size in sizes.items():
        progress("upload", done, sum(sizes.values()))
        if there.get(path.name) != size:
            copies.upload(path, out / "text" / path.name)
        done += size


def remove_work(out: Path) -> None:
    """Removes what only an unfinished result needs: of one in a bucket, all that is here. A process
    that is still at work in it keeps it."""
    place = place_of(out)
    if not _in_use(place):
        shutil.rmtree(place if is_remote(out) else out / ".work", ignore_errors=True)
    if is_remote(out):
        (out / BEGUN).unlink(missing_ok=True)


def _in_use(place: Path) -> bool:
    try:
        with open(place / LOCK, "r+") as file:
            return lock(file) is False
    except OSError:
        return False
