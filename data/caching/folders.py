"""Folders of a cache: their names, their locks, and the progress of building them."""

import contextlib
import fcntl
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from data.atomic import lock
from data.buckets import copies
from data.files import to_path


def named_folder(cache: Path, words: list[str], key: list) -> Path:
    """A readable folder name that ends with a hash of `key`. Of a cache in a bucket, the folder
    that mirrors it here."""
    stems = [re.sub(r"[^A-Za-z0-9]+", "-", to_path(word).name).strip("-")[:40] for word in words]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    return copies.folder_of(cache) / "-".join([*stems, digest])


@contextlib.contextmanager
def locked_if_missing(path: Path) -> Iterator[bool]:
    """Yields whether `path` must be built. If so, a lock keeps other processes from building it.

    The operating system releases the lock when the process ends, even if it is killed. Of a cache
    in a bucket, the folder is fetched if it is complete there, and otherwise built and uploaded.
    """
    if path.exists() and copies.is_shared(path.parent):
        yield False
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.parent / ".lock", "w")
    except OSError as error:
        place = f"data.cache={path.parents[1]}"
        if copies.origin_of(path.parent):
            place = f"{copies.PLACE}={copies.mirror()}"
        raise ValueError(
            f"{place} cannot be written ({error.strerror or error}); name another place"
        ) from error
    with file:
        # On a file system without locks, processes may repeat work, but writes are atomic.
        lock(file, fcntl.LOCK_EX)
        missing = not path.exists() and not copies.pull(path.parent, path.name)
        yield missing
        copies.push(path.parent, path.name)


@contextlib.contextmanager
def progress_of(title: str, total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields `advance(bytes)`: a bar on a terminal, otherwise a line on stderr every 10 s."""
    if not shown:
        yield lambda n: None
        return
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda n: bar.advance(task, n)
        return
    done, next_line = 0, time.monotonic() + 10

    def advance(n: int) -> None:
        nonlocal done, next_line
        done += n
        if time.monotonic() >= next_line:
            next_line += 10
            print(f"{title}: {done / 1e6:.0f} MB", file=sys.stderr, flush=True)

    yield advance


@contextlib.contextmanager
def still_at(title: str, shown: bool) -> Iterator[None]:
    """Names work without known progress on stderr: on a terminal with the elapsed time, else in
    one line."""
    if not shown:
        yield
        return
    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
        yield
        return
    from rich import progress
    from rich.console import Console

    columns = progress.SpinnerColumn(), progress.TextColumn(title), progress.TimeElapsedColumn()
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(title, total=None)
        yield
