"""Exit codes, and bad input: one line and exit code 2, where a bug keeps its traceback."""

import contextlib
import errno
from collections.abc import Iterator

DONE, BUG, BAD_INPUT, PREEMPTED, DIVERGED = 0, 1, 2, 42, 43
"""Exit codes of every verb and every trial."""

IN_USE = 75
"""Exit code of a task of a sweep whose folder another process holds; the sweep returns to it."""

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


class BadInput(Exception):
    """A mistake the user can fix. Its text is one line: the key, the value, the remedy. `details`
    is shown below it: the traceback of a file of the user's own."""

    def __init__(self, message: object, details: str = ""):
        super().__init__(" ".join(str(message).split()))
        self.details = details


class InUse(BadInput):
    """Another process holds a folder. For a sweep this is no failure."""


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Turns a ValueError or OSError raised inside into BadInput.

    Verbs read and validate what the user gave inside it and do the work outside, so that a
    ValueError from the work itself remains a bug with its traceback.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise BadInput(no_space(error) if disk_full(error) else error) from error
    except RecursionError as error:
        raise BadInput("a JSON file that was read is nested too deeply; replace it") from error


@contextlib.contextmanager
def writing(flag: str, path: object) -> Iterator[None]:
    """Turns the OSError of a path that cannot be written into BadInput that names its flag. The
    OSError of a full disk passes through.
    """
    try:
        yield
    except OSError as error:
        if disk_full(error):
            raise
        raise BadInput(
            f"--{flag}={path} cannot be written ({error.strerror or error}); name another place"
        ) from error


def no_space(error: OSError) -> str:
    """One line about a full disk."""
    where = f" at {error.filename}" if error.filename else ""
    return f"no space left{where}; free some and run this again"


def disk_full(error: BaseException) -> bool:
    """Whether `error` says that the disk is full, which is bad input wherever it is raised."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL
