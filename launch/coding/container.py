"""The file that `isoflop compress` writes.

8 bytes   MAGIC
1 byte    VERSION
4 bytes   length of the header, little-endian
header    a JSON object, compressed by zlib: the fields of Header
gaps      bytes that no token spells, compressed by Zstandard
content   the coded tokens
4 bytes   CRC-32 of everything before it, little-endian
"""

import dataclasses
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import zstandard

from data.local import parse_object

MAGIC = b"\x89isoflop"  # no text begins so
VERSION = 1
LEVEL = 19  # of Zstandard
MOST_HEADER = 1 << 16  # bytes, uncompressed
MOST_STREAMS = 4096
_START = struct.Struct("<8sBI")
_CRC = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a decoder needs to know and to check. `model` and `sha256` are hexadecimal."""

    model: str  # SHA-256 of the parameters, the keys of the model and the tokenizer
    run: str  # the name of the folder, and
    step: int  # the training step of the model: for messages
    platform: dict[str, Any]
    bytes: int  # of the original
    sha256: str  # of the original
    tokens: int
    streams: int
    overlap: int
    gaps: int  # bytes of this part of the file
    content: int
    checks: list[int]

    def __post_init__(self):
        numbers = (self.step, self.bytes, self.tokens, self.overlap, self.gaps, self.content)
        sound = all(type(n) is int and n >= 0 for n in (*numbers, self.streams, *self.checks))
        named = all(isinstance(text, str) for text in (self.model, self.run, self.sha256))
        if not (sound and named and isinstance(self.platform, dict)):
            raise TypeError("a field has a wrong type")
        if not 1 <= self.streams <= MOST_STREAMS or self.tokens > self.bytes + 1:
            raise TypeError("its sizes are impossible")


def write(header: Header, gaps: bytes, content: bytes) -> bytes:
    """The whole file."""
    about = zlib.compress(json.dumps(vars(header), separators=(",", ":")).encode(), 9)
    whole = b"".join([_START.pack(MAGIC, VERSION, len(about)), about, gaps, content])
    return whole + _CRC.pack(zlib.crc32(whole))


def read(file: bytes, name: str) -> tuple[Header, bytes, bytes]:
    """(header, gaps, content). ValueError, in one line, for another or a damaged file."""
    if not file.startswith(MAGIC):
        if file and MAGIC.startswith(file[: len(MAGIC)]):
            raise ValueError(f"{name} is truncated; copy it again")
        raise ValueError(f"{name} was not written by isoflop compress; name a file that was")
    if len(file) < _START.size:
        raise ValueError(f"{name} is truncated; copy it again")
    _, version, length = _START.unpack_from(file)
    if version != VERSION:
        raise ValueError(
            f"{name} has version {version} of the format; this isoflop reads {VERSION}: use the "
            "one that wrote it"
        )
    try:
        header = Header(**parse_object(_inflated(file[_START.size : _START.size + length])))
    except (ValueError, TypeError, zlib.error):
        raise ValueError(f"{name} is damaged or truncated in its header; copy it again") from None
    ends = _START.size + length + header.gaps
    size = ends + header.content + _CRC.size
    if len(file) != size:
        how = "truncated" if len(file) < size else "damaged"
        raise ValueError(f"{name} is {how}: {len(file):,} of {size:,} bytes; copy it again")
    if _CRC.unpack(file[-_CRC.size :])[0] != zlib.crc32(file[: -_CRC.size]):
        raise ValueError(f"{name} is damaged: its checksum does not fit; copy it again")
    return header, file[ends - header.gaps : ends], file[ends : -_CRC.size]


def _inflated(about: bytes) -> bytes:
    """The header, at most MOST_HEADER bytes."""
    return zlib.decompressobj().decompress(about, MOST_HEADER)


def pack_gaps(gaps: Sequence[tuple[int, bytes]]) -> bytes:
    """Gaps (tokens before, bytes) as compressed bytes; b"" without any. The numbers come first:
    the distance from the gap before and the length, in 7 bits a byte."""
    if not gaps:
        return b""
    numbers, before = bytearray(), 0
    for place, raw in gaps:
        numbers += _varint(place - before) + _varint(len(raw))
        before = place
    plain = _varint(len(gaps)) + numbers + b"".join(raw for _, raw in gaps)
    return zstandard.ZstdCompressor(level=LEVEL).compress(plain)


def unpack_gaps(packed: bytes, most: int) -> list[tuple[int, bytes]]:
    """The gaps of a file of `most` bytes. ValueError for impossible ones."""
    if not packed:
        return []
    try:
        with zstandard.ZstdDecompressor().stream_reader(packed) as reader:
            # At most two numbers and one byte a gap. One read would allocate that much at once.
            parts, left = [], 20 * most + 20
            while left and (part := reader.read(min(left, 1 << 20))):
                parts.append(part)
                left -= len(part)
            plain = b"".join(parts)
    except zstandard.ZstdError as error:
        raise ValueError(f"gaps: {error}") from None
    numbers = _varints(plain)
    try:
        count = next(numbers)[0]
        if count > most:
            raise ValueError("gaps: too many")
        pairs = [(next(numbers)[0], *next(numbers)) for _ in range(count)]
    except StopIteration:
        raise ValueError("gaps: truncated") from None
    gaps, place, at = [], 0, pairs[-1][2] if pairs else 0
    for distance, length, _ in pairs:
        place += distance
        gaps.append((place, plain[at : at + length]))
        at += length
    if at != len(plain):
        raise ValueError("gaps: truncated")
    return gaps


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _varints(content: bytes) -> Iterator[tuple[int, int]]:
    """(number, where the next one begins), from the beginning."""
    number = shift = 0
    for at, byte in enumerate(content, start=1):
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            yield number, at
            number = shift = 0
