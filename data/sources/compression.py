"""Opens plain and compressed files by their suffix, in bounded memory.

Decompressors return a bounded number of bytes at a time, even if a small file expands to a large
one.
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

from data.buckets import copies

ZSTD_READ_BYTES = 1 << 9  # read from a zstandard file at a time; 4 bytes can expand to 128 KiB


def open_file(path: Path) -> BinaryIO:
    """Opens `path` for reading; its content is decompressed while it is read. A file in a bucket is
    copied to this machine first."""
    here = copies.fetched(path)
    return COMPRESSIONS[path.suffix.lower()][1](here) if compressed(path) else open(here, "rb")


def compressed(path: Path) -> bool:
    """Whether the suffix of `path` is that of a compressed file."""
    return path.suffix.lower() in COMPRESSIONS


def ending(path: Path) -> str:
    """The suffix of the file format in lower case, without compression: .jsonl for x.JSONL.zst."""
    return (path.with_suffix("") if compressed(path) else path).suffix.lower()


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turns a decompressor's error into a one-line ValueError that names the file."""
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
    """Decompresses frame by frame. Unlike zstandard.open, raises EOFError for a truncated file."""

    def __init__(self, file: BinaryIO):
        self.file, self.frame = file, None
        self.ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self.ready and (raw := self.file.read(ZSTD_READ_BYTES)):
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
