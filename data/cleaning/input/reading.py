"""Reads the documents of a piece of input, whatever its bytes are.

A row that cannot be read is skipped and counted. A file that is damaged ends where the damage is:
`Damaged` says why, and what was read before it counts. Bytes that are not UTF-8 are read as
Windows-1252, line by line, so that one such line does not change the others. A compressed file that
expands beyond `max_expansion` times its size is damaged too.
"""

import codecs
import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from data.buckets import copies
from data.cleaning.input.raw import MARKS, Damaged, Document, Rows, bounded, decoded
from data.cleaning.input.units import PARQUET, SPLIT, Piece
from data.cleaning.input.web_archive import documents as archived
from data.local import parse_json
from data.sources import corpus
from data.sources.compression import compressed, ending, naming_damage, open_file
from data.sources.formats import CHUNK_BYTES, FIRST_BYTES, LARGEST_DOCUMENT, ROW_READERS

ROWS_AT_ONCE = 16
LARGEST_GROUP = 4 << 30  # bytes of an unpacked row group of Parquet


def documents(piece: Piece, text_key: str, max_expansion: float, bad: Rows) -> Iterator[Document]:
    """The documents of a piece. Raises Damaged."""
    if piece.path is None:
        for number, text in enumerate(corpus.documents(piece.name, text_key), start=1):
            yield Document(f"{piece.name} document {number}", text)
        return
    kind = ending(piece.path)
    try:
        if kind in PARQUET:
            yield from _parquet(piece, text_key, bad)
        elif kind in (".warc", ".wet"):
            yield from archived(piece, max_expansion, bad)
        elif kind in SPLIT:
            with naming_damage(piece.path), open_file(piece.path) as raw:
                yield from _jsonl(bounded(raw, piece, max_expansion), piece, text_key, bad)
        elif kind in ROW_READERS:
            with naming_damage(piece.path), open_file(piece.path) as raw:
                stream = bounded(raw, piece, max_expansion)
                rows = ROW_READERS[kind](stream, piece.path, text_key)
                for number, text in enumerate(rows, start=1):
                    yield Document(f"{piece.name} row {number}", text)
        else:
            with naming_damage(piece.path), open_file(piece.path) as raw:
                yield from _text(bounded(raw, piece, max_expansion), piece)
    except Damaged:
        raise
    except (ValueError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        reason = " ".join(str(error).removeprefix(f"{piece.path} ").split())
        raise Damaged(reason or type(error).__name__) from error


def _jsonl(stream: BinaryIO, piece: Piece, text_key: str, bad: Rows) -> Iterator[Document]:
    """Rows that begin at or after the byte `start` and before `end`. A place is named by its byte,
    which does not depend on where pieces begin."""
    offset = piece.start
    if offset:
        stream.seek(offset - 1)
        offset += len(stream.readline()) - 1  # the rest of a line of the piece before
    while (not piece.end or offset < piece.end) and (raw := stream.readline(LARGEST_DOCUMENT + 1)):
        where, offset = f"{piece.name} byte {offset}", offset + len(raw)
        if len(raw) > LARGEST_DOCUMENT:
            bad(where, f"it is longer than {LARGEST_DOCUMENT >> 20} MiB")
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(LARGEST_DOCUMENT)
                offset += len(raw)
            continue
        if raw.isspace():
            continue
        try:
            text, other = decoded(raw)
            row = parse_json(text)
            text = row_text(row, text_key)
        except ValueError as error:
            bad(where, " ".join(str(error).split()))
            continue
        yield Document(where, text, other)


def row_text(row: object, text_key: str) -> str:
    """The text of a row, "" for null; ValueError without one."""
    if not isinstance(row, dict) or text_key not in row:
        keys = ", ".join(sorted(map(str, row))[:9]) if isinstance(row, dict) else "none"
        raise ValueError(f"it has no key input.text_key={text_key!r}; keys found: {keys or 'none'}")
    if not isinstance(row[text_key], str | None):
        raise ValueError(f"its {text_key!r} is {type(row[text_key]).__name__}, not a string")
    return (row[text_key] or "").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _text(stream: BinaryIO, piece: Piece) -> Iterator[Document]:
    """A file of text: one document, or documents of about 8 KiB if the corpus is this file alone or
    the file is larger than a document may be."""
    head = stream.peek(4096)[:4096]
    for first, kind in FIRST_BYTES.items():
        if head.startswith(first):
            raise Damaged(f"it is not text: it holds {kind}")
    whole = b"" if piece.single else stream.read(LARGEST_DOCUMENT + 1)
    if not piece.single and len(whole) <= LARGEST_DOCUMENT:
        yield Document(piece.name, *decoded(whole))
        return
    if head.startswith(tuple(MARKS)) and not head.startswith(codecs.BOM_UTF8):
        raise Damaged("it is UTF-16 or UTF-32 and too long to convert; convert it to UTF-8")
    block, number = bytearray(), 0
    for line in _lines(whole, stream):
        block += line
        if len(block) >= (2 * CHUNK_BYTES if line.strip() else CHUNK_BYTES):
            number += 1
            yield Document(f"{piece.name} part {number}", *decoded(bytes(block)))
            block.clear()
    if block:
        yield Document(f"{piece.name} part {number + 1}", *decoded(bytes(block)))


def _lines(read: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """Lines of bytes that were read and of the stream behind them; a long line in parts that end
    between words where they can."""
    ahead = io.BytesIO(read)
    pending = b""
    while True:
        line = ahead.readline(CHUNK_BYTES) or stream.readline(CHUNK_BYTES)
        if not line:
            break
        pending += line
        if pending.endswith(b"\n"):
            yield pending
            pending = b""
        elif len(pending) >= CHUNK_BYTES:
            end = max((match.end() for match in re.finditer(rb"[ -\x7f]", pending)), default=0)
            yield pending[: end or len(pending)]
            pending = pending[end or len(pending) :]
    if pending:
        yield pending


def _parquet(piece: Piece, text_key: str, bad: Rows) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Damaged("it needs the package pyarrow; pip install pyarrow") from None
    if compressed(piece.path):
        raise Damaged("Parquet files compress their columns themselves; unpack this one")
    try:
        with pyarrow.parquet.ParquetFile(copies.fetched(piece.path)) as file:
            if text_key not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names[:9])
                raise Damaged(f"it has no column input.text_key={text_key!r}; it has {names}")
            groups = range(piece.start, piece.end or file.metadata.num_row_groups)
            for group in groups:
                if file.metadata.row_group(group).total_byte_size > LARGEST_GROUP:
                    raise Damaged(f"row group {group} is larger than 4 GiB, unpacked")
                row = 0
                batches = file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[text_key])
                for value in (value for batch in batches for value in batch.column(0)):
                    where, row = f"{piece.name} group {group} row {row}", row + 1
                    try:
                        yield Document(where, row_text({text_key: value.as_py()}, text_key))
                    except ValueError as error:
                        bad(where, str(error))
    except (pyarrow.ArrowException, OSError) as error:
        raise Damaged(f"it is damaged or not Parquet: {error}") from error
