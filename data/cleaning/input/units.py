"""Divides the input into units of work of bounded size, the same for any number of workers.

A piece is a file, or a part of one that can be read from its middle: a range of bytes of an
uncompressed .jsonl file, or of row groups of a Parquet file. A unit is consecutive pieces of
together about `unit_bytes` bytes. Any other file, such as a compressed one, is one piece however
large it is, and so is a corpus that is no file, such as hf:NAME.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.buckets import copies
from data.sources import corpus
from data.sources.compression import compressed, ending

SPLIT = {".jsonl", ".jsonlines", ".ndjson"}  # uncompressed
PARQUET = {".parquet", ".pq"}


@dataclass(frozen=True)
class Piece:
    """A file or a part of one. `start` and `end` count bytes, or row groups of Parquet; end 0 means
    the whole file. A corpus that is no file has its spec as name and no path."""

    name: str  # within its corpus; with the corpus if there are several
    path: Path | None
    single: bool  # whether the corpus is this file alone: text is then split into documents
    size: int  # bytes on the disk
    start: int = 0
    end: int = 0


@dataclass(frozen=True)
class Unit:
    """Pieces that one worker reads one after the other."""

    number: int
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(piece.size for piece in self.pieces)


@contextlib.contextmanager
def naming(key: str) -> Iterator[None]:
    """Errors of a corpus name `key` of this config, and the key of its text."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        section = key.partition(".")[0]
        text = str(error).replace("data.corpora", key)
        text = text.replace("data.text_key", f"{section}.text_key")
        if text == str(error):
            raise
        raise ValueError(text) from None


def plan(specs: Sequence[str], unit_bytes: int) -> list[Unit]:
    """The units of some corpora, in order."""
    units, pieces, size = [], [], 0
    for piece in _all_pieces(specs, unit_bytes):
        pieces.append(piece)
        size += piece.size
        if size >= unit_bytes:
            units.append(Unit(len(units), tuple(pieces)))
            pieces, size = [], 0
    if pieces:
        units.append(Unit(len(units), tuple(pieces)))
    return units


def _all_pieces(specs: Sequence[str], unit_bytes: int) -> Iterator[Piece]:
    for spec in specs:
        if corpus.scheme(spec):
            yield Piece(spec, None, False, corpus.size(spec) or unit_bytes)
            continue
        single = corpus.is_file(spec)
        for name, path in corpus.files(spec):
            if len(specs) > 1:
                name = spec if single else f"{spec.rstrip('/')}/{name}"
            yield from _pieces(name, path, single, unit_bytes)


def _pieces(name: str, path: Path, single: bool, unit_bytes: int) -> list[Piece]:
    size, kind = path.stat().st_size, ending(path)
    if kind in PARQUET and not compressed(path):
        return _row_groups(Piece(name, path, single, size), unit_bytes)
    if kind not in SPLIT or compressed(path) or size <= unit_bytes:
        return [Piece(name, path, single, size)]
    starts = range(0, size, unit_bytes)
    return [
        Piece(
            name, path, single, min(unit_bytes, size - start), start, min(size, start + unit_bytes)
        )
        for start in starts
    ]


def _row_groups(whole: Piece, unit_bytes: int) -> list[Piece]:
    """Pieces of one or more row groups. A file that cannot be read is one piece; reading it reports
    the damage."""
    try:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(copies.fetched(whole.path)) as file:
            groups = [
                file.metadata.row_group(i).total_byte_size
                for i in range(file.metadata.num_row_groups)
            ]
    except (ImportError, OSError, ValueError):  # pyarrow's errors are ValueErrors
        return [whole]
    pieces, start, size = [], 0, 0
    for place, group in enumerate(groups):
        size += group
        if size >= unit_bytes or place + 1 == len(groups):
            share = whole.size * size // max(1, sum(groups))
            pieces.append(Piece(whole.name, whole.path, whole.single, share, start, place + 1))
            start, size = place + 1, 0
    return pieces or [whole]
