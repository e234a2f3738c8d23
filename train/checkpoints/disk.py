"""Checkpoints in a folder of a file system: FOLDER/STEP/ holds Orbax's files and a manifest."""

import contextlib
import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from data.buckets.lease import Lease
from data.files import sha256_of
from train.checkpoints.manifest import MANIFEST, fault, is_step
from train.parallel import processes

TEMPORARY = ".orbax-checkpoint-tmp"


def finished(folder: Path) -> list[Path]:
    """Folders of the finished checkpoints of a run, newest first."""
    paths = [p for p in Path(folder).glob("*") if is_step(p.name) and (p / MANIFEST).exists()]
    return sorted(paths, key=lambda p: -int(p.name))


def make_room(path: Path, size: int, lease: Lease) -> bool:
    """Whether this step is already saved. If not, removes its folder and checks that the disk has
    room for `size` bytes; otherwise OSError. Orbax would only fail during the write."""
    if (path / MANIFEST).exists():
        return True
    lease.confirm()
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    return False


def remove_unfinished(folder: Path, lease: Lease) -> list[str]:
    """Removes what killed or failed saves left in a folder, and returns the removed names.
    LostLock, and nothing is removed, if another process has the folder."""
    left = [p for p in folder.glob("*") if TEMPORARY in p.name or is_step(p.name)]
    left = [p for p in left if not (p / MANIFEST).exists()]
    if left:
        lease.confirm()
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    return [path.name for path in left]


def remove(paths: Sequence[Path], lease: Lease) -> None:
    """Removes checkpoints."""
    for path in paths:
        lease.confirm()
        os.remove(path / MANIFEST)  # now it counts as unfinished
        shutil.rmtree(path)


def set_aside(paths: Sequence[Path], lease: Lease) -> None:
    """Renames damaged checkpoints, so that their steps can be saved again."""
    for path in paths:
        lease.confirm()
        names = (f"{path.name}.damaged{n or ''}" for n in itertools.count())
        os.rename(path, next(p for name in names if not (p := path.with_name(name)).exists()))


def damage_of_share(path: Path) -> str | None:
    """What is wrong with the files that this process checks; None if nothing is."""
    try:
        content = (path / MANIFEST).read_bytes()
    except OSError:
        return f"{MANIFEST} cannot be read"
    if found := fault(content, path.name):
        return found
    files = json.loads(content)["files"]
    listed = sorted(files)
    expected = {name: files[name] for name in processes.share(listed)}
    # Files with certain names change how Orbax reads a checkpoint. Hidden files are harmless.
    if extra := [name for name in names(path) if name not in listed and "/." not in f"/{name}"]:
        return f"{extra[0]} does not belong to it"
    try:
        actual = hashes(path, [name for name in expected if (path / name).is_file()])
    except OSError as error:
        return f"{error.filename} cannot be read"
    for name, stated in expected.items():
        if name not in actual:
            return f"{name} is missing"
        if actual[name] != stated:
            return f"{name} does not match its hash"
    return None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder with the files of a checkpoint, for as long as they are read."""
    yield path.absolute()


def names(path: Path) -> list[str]:
    """The files of a checkpoint, relative to it, without its manifest."""
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(MANIFEST)]
    return [p.relative_to(path).as_posix() for p in files]


def hashes(path: Path, names: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of each file, by name."""
    return {name: sha256_of(path / name) for name in names}
