"""Provides an iterator whose items a thread prepares in advance."""

import contextlib
import queue
import threading
from collections.abc import Iterable

_END = object()


class prefetch:
    """Iterates over `iterator` with a thread that works up to `depth` items ahead.

    An exception in the thread is raised by the `next` call that would return the failed item. The
    thread stops on `close`, at the end of a `with` block, or when this object is collected.
    """

    def __init__(self, iterator: Iterable, depth: int = 2):
        self._ready: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        arguments = (iterator, self._ready, self._closed)
        # The thread holds the queue, not this object, so that this object can be collected.
        self._thread = threading.Thread(target=_fill, args=arguments, daemon=True)
        self._thread.start()

    def __iter__(self) -> "prefetch":
        return self

    def __next__(self) -> object:
        if self._closed.is_set():
            raise StopIteration
        item, error = self._ready.get()
        if item is _END:
            self.close()
            raise error or StopIteration
        return item

    def close(self) -> None:
        """Stops the thread and waits for the item that it is preparing."""
        self._closed.set()
        while self._thread.is_alive():
            self._make_room()
            self._thread.join(0.01)

    def __enter__(self) -> "prefetch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._closed.set()
        self._make_room()

    def _make_room(self) -> None:
        """Unblocks a thread that waits to put an item, so that it can check `_closed` and stop."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait()


def _fill(iterator: Iterable, ready: queue.Queue, closed: threading.Event) -> None:
    error = None
    try:
        for item in iterator:
            ready.put((item, None))
            if closed.is_set():
                return
    except BaseException as raised:
        error = raised
    ready.put((_END, error))
