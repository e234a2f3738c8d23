"""Writes files atomically, even if the machine crashes."""

import os
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Replaces `path` in one step: a reader sees the old or the new content, never a part of it.

    The folder must exist. On failure, such as an OSError, the old content stays.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
