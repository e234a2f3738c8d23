"""Bytes of input: their encoding, how far they expand, and what is damaged."""

import codecs
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from data.cleaning.input.units import Piece
from data.sources.compression import compressed

SLACK = 64 << 20  # bytes that any compressed file may expand to
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


class Damaged(ValueError):
    """A file that cannot be read on: why, in one line."""


@dataclass(frozen=True)
class Document:
    """A text, the place that it was read from, and the lines that were not UTF-8."""

    where: str
    text: str
    other_encoding: int = 0


Rows = Callable[[str, str], None]  # told the place and the fault of each row that is skipped


class _Bounded(io.RawIOBase):
    """Reads on from a stream until more than `most` bytes have come."""

    def __init__(self, stream: BinaryIO, most: int, why: str):
        self.stream, self.left, self.why = stream, most, why

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        raw = self.stream.read1(min(len(buffer), 1 << 20))
        self.left -= len(raw)
        if self.left < 0:
            raise Damaged(self.why)
        buffer[: len(raw)] = raw
        return len(raw)


def bounded(raw: BinaryIO, piece: Piece, max_expansion: float) -> BinaryIO:
    """The stream of a compressed file; it raises Damaged beyond `max_expansion` times the size of
    the file, and SLACK."""
    if not compressed(piece.path):
        return raw
    most = int(SLACK + max_expansion * piece.path.stat().st_size)
    why = f"it expands to more than {most:,} bytes (input.max_expansion={max_expansion:g})"
    return io.BufferedReader(_Bounded(raw, most, why), 1 << 20)


def decoded(raw: bytes) -> tuple[str, int]:
    """(the text of some bytes, the number of its lines that are not UTF-8). A byte order mark
    chooses UTF-16 or UTF-32. Damaged for NUL bytes, which no other text has."""
    for mark, name in MARKS.items():
        if raw.startswith(mark):
            return raw.decode(name, "replace"), 0
    if b"\0" in raw:
        raise Damaged(f"it is not text: NUL byte at offset {raw.index(0)}")
    try:
        return raw.decode(), 0
    except UnicodeDecodeError:
        pass
    lines, other = [], 0
    for line in raw.splitlines(keepends=True):
        try:
            lines.append(line.decode())
        except UnicodeDecodeError:
            other += 1
            lines.append(line.decode("cp1252", "replace"))
    return "".join(lines), other
