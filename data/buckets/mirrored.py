"""Files that grow, kept on this machine and copied to a bucket, where nothing can be appended."""

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data.buckets.attempts import Changed
from data.buckets.lease import Lease, LostLock, Unlocked
from data.buckets.scratch import scratch
from data.buckets.versioned import client
from data.files import is_remote

EVERY = 30.0  # seconds between copies, at least; a bucket takes one write a second of an object


class Mirrored:
    """An object in a bucket and the file of this machine that it follows. A copy replaces only the
    version that the copy before it made: a process that has lost the folder cannot undo the rows of
    the one that has it."""

    def __init__(
        self,
        path: Path,
        lease: Lease | None = None,
        every: float = EVERY,
        local: Path | None = None,
    ):
        """`path` is in the bucket; `local` is a new file that is copied there (None: one with what
        the object holds)."""
        self.path, self._url = path, os.fspath(path)
        self._lease, self._every = lease or Unlocked(), every
        self._home = None if local else scratch()
        self.local, self._version = local or self._home / path.name, ""
        self._copied = b""  # what the bucket has
        if local is None:
            with contextlib.suppress(FileNotFoundError):
                self._copied, self._version = client(path).get(self._url)
            self.local.write_bytes(self._copied)
        self._turn, self._end = threading.Lock(), threading.Event()
        threading.Thread(target=self._follow, name="mirror", daemon=True).start()

    def copy(self) -> None:
        """Copies the file to the bucket, if it has changed. LostLock if another process has the
        folder or, without a lock, has written the object."""
        with self._turn:
            content = self.local.read_bytes() if self.local.exists() else self._copied
            if content == self._copied:
                return
            self._lease.confirm()
            store = client(self.path)
            while True:
                try:
                    self._version = store.put(self._url, content, self._version)
                    break
                except Changed:
                    # A late write of an owner before this one, or another owner.
                    self._lease.confirm()
                    if not self._lease.token:
                        raise LostLock(f"{self._url} was written by another process") from None
                    self._version = store.get(self._url)[1]
            self._copied = content

    def close(self) -> None:
        """Copies the file a last time."""
        self._end.set()
        try:
            self.copy()
        finally:
            if self._home:
                shutil.rmtree(self._home, ignore_errors=True)

    def _follow(self) -> None:
        while not self._end.wait(self._every):
            try:
                self.copy()
            except LostLock:
                return  # the next copy that someone waits for says so
            except OSError:
                continue


@contextlib.contextmanager
def appending(path: Path) -> Iterator[IO[bytes]]:
    """A file at whose end is written, without a buffer; its folder is created. In a bucket it is
    copied there every 30 s and at the end. If another process writes the object meanwhile, its text
    stays."""
    if not is_remote(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            yield file
        return
    mirror = Mirrored(path)
    try:
        with open(mirror.local, "ab", buffering=0) as file:
            yield file
    finally:
        with contextlib.suppress(LostLock):
            mirror.close()
