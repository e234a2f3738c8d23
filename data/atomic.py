"""Writes files atomically, even if the machine crashes, and locks files."""

import errno
import fcntl
import os
import secrets
import tempfile
from pathlib import Path
from typing import IO

from data.files import is_remote

AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB
# What the file system answers where it has no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def lock(file: IO, how: int = AT_ONCE) -> bool | None:
    """Locks an open file until it is closed or the process ends. True if it is locked now, False if
    another process holds it, None if the file system has no locks. `how` is that of flock."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def require_writable(folder: Path) -> None:
    """OSError if nothing can be written into a folder on this machine, or, where it does not exist
    yet, into the nearest folder above it."""
    near = next(one for one in (folder, *folder.parents) if one.exists())
    with tempfile.TemporaryDirectory(prefix=".written-", dir=near):
        pass


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces `path` in one step: a reader sees the old or the new content, never a part of it.

    The folder must exist. On failure, such as an OSError, the old content stays. An object in a
    bucket is replaced by one request, which is atomic.
    """
    if is_remote(path):
        path.write_bytes(content)
        return
    # Processes of several hosts, which may share a folder, can have the same number.
    mine = f"{os.getpid()}{secrets.randbelow(10**9):09}"
    temporary = path.with_name(f"{path.name}.{mine}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
