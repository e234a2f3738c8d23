"""Opens files that may be compressed, by the ending of their name; memory does not grow with them.

A decompressor gives out a bounded number of bytes at a time, however small the file is.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import zstandard

FED_BYTES = 1 << 9  # of a zstandard file at a time; each four can become 128 KiB


def open_file(path: Path) -> BinaryIO:
    """The content of `path`, decompressed while it is read."""
    return COMPRESSIONS[path.suffix.lower()][1](path) if compressed(path) else open(path, "rb")


def compressed(path: Path) -> bool:
    """Whether the name of `path` says that it is compressed."""
    return path.suffix.lower() in COMPRESSIONS


def ending(path: Path) -> str:
    """The ending that says what a file holds, in lower case: '.jsonl' for x.JSONL.zst."""
    return (path.with_suffix("") if compressed(path) else path).suffix.lower()


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turns a decompressor's error into a ValueError of one line that names the file."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        if (isinstance(error, OSError) and error.errno) or not compressed(path):
            raise
        kind = COMPRESSIONS[path.suffix.lower()][0]
        raise ValueError(f"{path} is damaged or not {kind}: {error}") from error


def _open_zstandard(path: Path) -> BinaryIO:
    return io.BufferedReader(_Zstandard(open(path, "rb")))


class _Zstandard(io.RawIOBase):
    """Decompresses frame after frame. EOFError for a cut file, which zstandard.open hides."""

    def __init__(self, file: BinaryIO):
        self.file, self.frame = file, None
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self.ready and (raw := self.file.read(FED_BYTES)):
            self.ready = memoryview(b"".join(self._decompress(raw)))
        if not self.ready and self.frame:
            raise EOFError("it ends within a frame")
        n = min(len(buffer), len(self.ready))
        buffer[:n], self.ready = self.ready[:n], self.ready[n:]
        return n

    def _decompress(self, raw: bytes) -> Iterator[bytes]:
        while raw:
            self.frame = self.frame or zstandard.ZstdDecompressor().decompressobj()
            yield self.frame.decompress(raw)
            raw = self.frame.unused_data
            if self.frame.eof:
                self.frame = None

    def close(self) -> None:
        self.file.close()
        super().close()


COMPRESSIONS: dict[str, tuple[str, Callable[[Path], BinaryIO]]] = {
    ".gz": ("gzip", gzip.open),
    ".gzip": ("gzip", gzip.open),
    ".bz2": ("bzip2", bz2.open),
    ".xz": ("xz", lzma.open),
    ".lzma": ("lzma", lzma.open),
    ".zst": ("zstandard", _open_zstandard),
    ".zstd": ("zstandard", _open_zstandard),
}
