"""Reads WARC and WET archives (ISO 28500): the text of WET records, the main text of web pages."""

import contextlib
import zlib
from collections.abc import Iterator

from data.cleaning.input.raw import Damaged, Document, Rows, bounded, decoded
from data.cleaning.input.units import Piece
from data.sources.compression import naming_damage, open_file

LARGEST_PAGE = 16 << 20  # bytes of a record that is read


def documents(piece: Piece, max_expansion: float, bad: Rows) -> Iterator[Document]:
    """The texts of an archive: conversion records as they are, HTML responses through trafilatura.
    Records without text are left out. Raises Damaged."""
    try:
        from warcio.archiveiterator import ArchiveIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError:
        raise Damaged("it needs the package warcio; pip install 'isoflop[clean]'") from None
    n = 0
    try:
        # warcio takes the end of a truncated .gz for that of the archive, and open_file does not.
        with naming_damage(piece.path), open_file(piece.path) as stream:
            for record in ArchiveIterator(bounded(stream, piece, max_expansion)):
                n += 1
                where = f"{piece.name} record {n}"
                address = record.rec_headers.get_header("WARC-Target-URI") or ""
                if not _wanted(record):
                    continue
                raw = record.content_stream().read(LARGEST_PAGE + 1)
                if len(raw) > LARGEST_PAGE:
                    bad(where, f"it is longer than {LARGEST_PAGE >> 20} MiB")
                    continue
                if record.rec_type == "conversion" and len(raw) < record.length:
                    raise Damaged(f"it ends within record {n}")
                with contextlib.suppress(Damaged):  # a page of NUL bytes has no text
                    text, other = _text(record.rec_type, raw)
                    if text:
                        yield Document(f"{where} {address}".strip(), text, other)
    except (ArchiveLoadFailed, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise Damaged(f"it is damaged after record {n}: {error}") from error
    if not n:
        raise Damaged("it holds no record")


def _wanted(record: object) -> bool:
    if record.rec_type == "conversion":
        return True
    kind = (record.http_headers and record.http_headers.get_header("Content-Type")) or ""
    return record.rec_type == "response" and "html" in kind.lower()


def _text(kind: str, raw: bytes) -> tuple[str, int]:
    if kind == "conversion":
        return decoded(raw)
    try:
        import trafilatura
    except ImportError:
        raise ValueError(
            "web pages need the package trafilatura; pip install 'isoflop[clean]'"
        ) from None
    return trafilatura.extract(raw, include_comments=False, include_tables=False) or "", 0
