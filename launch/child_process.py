"""What a process does about its parent and its output: ends with the one, redirects the other."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence


def end_with_parent(parent_gone: Callable[[], object], number: int) -> None:
    """Sends this process the signal `number` as soon as `parent_gone()` returns, which it does when
    the parent has died. Waits in a thread of its own."""

    def wait() -> None:
        parent_gone()
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def output_to(descriptor: int, streams: Sequence[int] = (1, 2)) -> Iterator[None]:
    """Sends what this process writes to `streams`, native code included, to a file descriptor."""
    saved = [os.dup(stream) for stream in streams]
    try:
        for stream in streams:
            os.dup2(descriptor, stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, old in zip(streams, saved, strict=True):
            os.dup2(old, stream)
            os.close(old)
