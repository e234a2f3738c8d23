"""The folder of runs that a verb reads, which may be in a bucket."""

import time
from pathlib import Path

from data.files import is_remote, to_path


def runs_in(folder: str | Path) -> Path:
    """The folder of runs that a flag names, to be read. One in a bucket is read at once, as it is
    now, in one listing and the small files; what has not changed since it was read is kept."""
    if not is_remote(path := to_path(folder)):
        return path
    from data.buckets.snapshot import snapshot  # slow to import

    return snapshot(path, earlier=path)


def read_at(folder: Path) -> float:
    """The Unix time at which a folder of `runs_in` was read, by the clock of its store."""
    return folder.held.now if hasattr(folder, "held") else time.time()
