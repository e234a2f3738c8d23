"""Reads the documents of one file: one per row in row formats, otherwise text that may be split.

Readers hold one document at a time, of at most LARGEST_DOCUMENT bytes. A longer row is an error; a
longer text is split at paragraphs.
"""

import codecs
import csv
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from data.buckets import copies
from data.local import parse_json
from data.sources.compression import compressed, ending, naming_damage, open_file

CHUNK_BYTES = 8 * 1024  # smallest document that a single text file is split into
LARGEST_DOCUMENT = 64 << 20
READ_BYTES = 1 << 20  # read from a .json file at a time
ROWS_AT_ONCE = 16  # read from Parquet, where a few bytes can repeat a large document many times
TEXT_ENDINGS = {".txt", ".text", ".md", ".rst", ".tex", ".py"}  # always read as text
_STRING, _SCALAR = rb'"([^"\\]|\\.)*"\s*', rb"(-?\d[-+.\deE]*|null|true|false)\s*"
# Objects, or arrays with a string, each alone or first in an array.
LIKE_ROWS = re.compile(
    rb"\s*(\[\s*)?(\{\s*%b:|\[\s*(%b,\s*)*%b[,\]])" % (_STRING, _SCALAR, _STRING)
    + rb"|\s*\[\s*(%b,\s*)*%b[,\]]" % (_SCALAR, _STRING)
)
FIRST_BYTES = {
    b"\x1f\x8b": "gzip",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"PK\x03\x04": "a zip archive",
    b"%PDF-": "PDF",
}


def read_file(path: Path, text_key: str, single: bool) -> Iterator[str]:
    """The documents of `path`. A text file is one document, or is split if it is the `single` file
    of a corpus.

    Raises ValueError, in one line, for a file that is damaged, binary, not of the format of its
    suffix, or without `text_key`, and for one with an unknown suffix that contains rows.
    """
    with naming_damage(path), open_file(path) as stream:
        if reader := ROW_READERS.get(ending(path)):
            yield from reader(stream, path, text_key)
            return
        _require_text(stream, path)
        if not single:
            raw = stream.read(LARGEST_DOCUMENT + 1)
            if len(raw) <= LARGEST_DOCUMENT:
                yield _decode(raw, path, 0)
                return
            del raw
    with naming_damage(path), open_file(path) as stream:
        yield from _paragraphs(stream, path)


def read_unchanged(path: Path, size: int, single: bool) -> bool:
    """Whether older versions, which know fewer suffixes, read the same documents from `path`."""
    kind = ending(path)
    as_one = not compressed(path) and size <= LARGEST_DOCUMENT
    return kind in (".jsonl", ".parquet") or (kind in TEXT_ENDINGS and (single or as_one))


def row_text(row: object, text_key: str, where: str) -> str:
    """The text of a row, '' for null; ValueError naming `where` if the row has no text."""
    if not isinstance(row, dict) or text_key not in row:
        _missing_key(where, text_key, row if isinstance(row, dict) else [])
    return _as_text(row[text_key], where, text_key)


def _require_text(stream: BinaryIO, path: Path) -> None:
    head = stream.peek(4096)[:4096].removeprefix(codecs.BOM_UTF8)
    for first, kind in FIRST_BYTES.items():
        if head.startswith(first):
            raise ValueError(f"{path} is not text: it holds {kind}; rename, unpack or remove it")
    if ending(path) not in TEXT_ENDINGS and LIKE_ROWS.match(head):
        raise ValueError(
            f"{path} looks like rows of JSON; name it .jsonl or .json if it holds rows, "
            ".txt if it is text"
        )


def _decode(raw: bytes, path: Path, offset: int) -> str:
    zero = raw.find(b"\0")
    if zero >= 0:
        raise ValueError(f"{path} is not text: NUL byte at offset {offset + zero}; leave it out")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start}; "
            "convert it to UTF-8 or leave it out"
        ) from error


def _paragraphs(stream: BinaryIO, path: Path) -> Iterator[str]:
    """Splits one text into documents, so that some of them can be held out.

    A document ends at the first blank line after CHUNK_BYTES bytes, or after twice that many bytes
    without a blank line. The concatenated documents are the file. Appending text to the file
    changes only the last document.
    """
    block, offset = bytearray(), 0
    while line := stream.readline(CHUNK_BYTES):
        block += line
        long_enough = len(block) >= (2 * CHUNK_BYTES if line.strip() else CHUNK_BYTES)
        if long_enough:
            end = _last_whole_character(block)
            yield _decode(bytes(block[:end]), path, offset)
            block, offset = block[end:], offset + end
    if block:
        yield _decode(bytes(block), path, offset)


def _last_whole_character(block: bytearray) -> int:
    """Where to split `block`, which may end within a character of a very long line."""
    for end in range(len(block) - 1, len(block) - 5, -1):
        if block[end] < 0x80:
            return end + 1
        if block[end] >= 0xC0:
            return end
    return len(block)


def lines(stream: BinaryIO, path: Path) -> Iterator[str]:
    """The lines of `stream`, without a byte order mark; ValueError for too long a line."""
    number, offset = 0, 0
    while raw := stream.readline(LARGEST_DOCUMENT + 1):
        number += 1
        if len(raw) > LARGEST_DOCUMENT:
            _too_long(f"{path} line {number}")
        line = _decode(raw, path, offset)
        yield line.removeprefix("\ufeff") if number == 1 else line
        offset += len(raw)


def json_lines(stream: BinaryIO, path: Path) -> Iterator[tuple[str, object]]:
    """(where it is, its value) of each line that is not blank; ValueError for one that is no
    JSON."""
    for number, line in enumerate(lines(stream, path), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise ValueError(f"{path} line {number} is not JSON: {error}") from error
        yield f"{path} line {number}", row


def _jsonl(stream: BinaryIO, path: Path, text_key: str) -> Iterator[str]:
    for where, row in json_lines(stream, path):
        yield row_text(row, text_key, where)


def _json(stream: BinaryIO, path: Path, text_key: str) -> Iterator[str]:
    """Rows of an array, or of a sequence of objects, such as one object or one per line."""
    for number, row in enumerate(_values(stream, path), start=1):
        yield row_text(row, text_key, f"{path} row {number}")


def _values(stream: BinaryIO, path: Path) -> Iterator[object]:
    text = _JsonText(stream, path)
    if text.next_character() not in ("[", "{"):
        raise ValueError(
            f"{path} holds neither an array nor an object; if it is text, name it .txt"
        )
    in_array = text.take("[")
    if in_array and text.take("]"):
        return
    while True:
        yield text.value()
        if in_array and not text.take(","):
            if not text.take("]") or text.next_character():
                text.fail("',' or the end of the array is missing")
            return
        if not in_array and not text.next_character():
            return


class _JsonText:
    """JSON values of a stream, one at a time."""

    def __init__(self, stream: BinaryIO, path: Path):
        self.stream, self.path = stream, path
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.place, self.offset, self.rows = "", 0, 0, 0
        self.ended = False

    def next_character(self) -> str:
        """The next character that is not white space; '' at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in " \t\r\n":
                self.place += 1
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self._read(READ_BYTES)

    def take(self, character: str) -> bool:
        """Whether `character` comes next; if so, moves past it."""
        matches = self.next_character() == character
        self.place += matches
        return matches

    def value(self) -> object:
        """Reads the next value."""
        self.next_character()
        while True:
            try:
                row, self.place = _DECODER.raw_decode(self.text, self.place)
            except RecursionError:
                self.fail("it is nested too deeply")
            except json.JSONDecodeError as error:
                if self.ended:
                    self.fail(error.msg)
            else:
                self.rows += 1
                return row
            if len(self.text) - self.place > LARGEST_DOCUMENT:
                _too_long(f"{self.path} row {self.rows + 1}")
            self._read(max(READ_BYTES, len(self.text) - self.place))

    def fail(self, reason: str) -> None:
        raise ValueError(f"{self.path} row {self.rows + 1} is not JSON: {reason}")

    def _read(self, size: int) -> None:
        raw = self.stream.read(size)
        if zero := raw.find(b"\0") + 1:
            raise ValueError(
                f"{self.path} is not text: NUL byte at offset {self.offset + zero - 1}"
            )
        kept = len(self.decoder.getstate()[0])
        try:
            more = self.decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            at = self.offset - kept + error.start
            raise ValueError(f"{self.path} is not UTF-8 at offset {at}; convert it") from error
        self.ended, self.offset = not raw, self.offset + len(raw)
        self.text, self.place = self.text[self.place :] + more, 0


_DECODER = json.JSONDecoder()


def _separated(delimiter: str) -> Callable[[BinaryIO, Path, str], Iterator[str]]:
    def read(stream: BinaryIO, path: Path, text_key: str) -> Iterator[str]:
        csv.field_size_limit(LARGEST_DOCUMENT)
        rows = csv.reader(lines(stream, path), delimiter=delimiter, strict=True)
        try:
            names = next(rows, [])
            if names and text_key not in names:
                _missing_key(str(path), text_key, names)
            for row in rows:
                if row and len(row) != len(names):
                    raise ValueError(
                        f"{path} line {rows.line_num} has {len(row)} fields, but the first "
                        f"line has {len(names)}; quote fields that contain {delimiter!r} or line "
                        "breaks"
                    )
                if row:
                    where = f"{path} line {rows.line_num}"
                    yield row_text(dict(zip(names, row, strict=True)), text_key, where)
        except csv.Error as error:
            raise ValueError(f"{path} line {rows.line_num} cannot be read: {error}") from error

    return read


def _parquet(stream: BinaryIO, path: Path, text_key: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f"{path} needs the package pyarrow; pip install pyarrow") from None
    with tempfile.TemporaryFile() as unpacked:
        if compressed(path):  # Parquet readers start at the end of the file
            shutil.copyfileobj(stream, unpacked)
            unpacked.seek(0)
        source = unpacked if compressed(path) else copies.fetched(path)
        try:
            with pyarrow.parquet.ParquetFile(source) as file:
                if text_key not in file.schema_arrow.names:
                    _missing_key(str(path), text_key, file.schema_arrow.names)
                row = 0
                for batch in file.iter_batches(columns=[text_key], batch_size=ROWS_AT_ONCE):
                    for value in batch.column(0):
                        yield _as_text(value.as_py(), f"{path} row {row}", text_key)
                        row += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path} is damaged or not Parquet: {error}") from error


def _missing_key(where: str, text_key: str, keys: Iterable[str]) -> None:
    names = ", ".join(sorted(map(str, keys))) or "none"
    raise ValueError(f"{where} has no key data.text_key={text_key!r}; keys found: {names}")


def _too_long(where: str) -> None:
    size = LARGEST_DOCUMENT >> 20
    raise ValueError(f"{where} is longer than {size} MiB; split it into several documents")


def _as_text(value: object, where: str, text_key: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(
            f"{where}: data.text_key={text_key!r} holds {type(value).__name__}, not a string"
        )
    if len(value) > LARGEST_DOCUMENT:
        _too_long(where)
    # JSON can contain half a surrogate pair, which UTF-8 cannot encode.
    return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


ROW_READERS: dict[str, Callable[[BinaryIO, Path, str], Iterator[str]]] = {
    ".jsonl": _jsonl,
    ".jsonlines": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".parquet": _parquet,
    ".pq": _parquet,
}
