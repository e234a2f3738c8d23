"""Cuts texts into passages of words or lines, which know their source and their place in it."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.build import digest_of
from data.local import parse_object
from data.retrieval.folder import write_array
from data.sources import corpus
from data.sources.compression import ending
from data.sources.formats import ROW_READERS, read_file

FILE, OFFSETS = "passages.jsonl", "offsets.npy"
WORD = re.compile(r"\S{1,200}")  # a longer run of characters is several words
LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Document(NamedTuple):
    """A text of a corpus. `begin` and `line` are the character and the line of its source at which
    it begins; `digest` is the hash that decides whether it is held out (`data/build.py`)."""

    source: str
    begin: int
    line: int
    text: str
    digest: bytes


class Passage(NamedTuple):
    """A part of a source. `begin`: its first character there, from 0; `line`: the line of that
    character, from 1; `document`: 16 hexadecimal digits, the hash of the document that it is from.
    """

    source: str
    begin: int
    line: int
    text: str
    document: str


def documents(spec: str, text_key: str = "text", max_bytes: int = 0) -> Iterator[Document]:
    """The documents of `corpus.documents`, with their sources: 'web.jsonl#12' is the 13th row of
    a file. Raises what that raises."""
    rows = ((row[3], row) for row in _read(spec, text_key))
    for source, begin, line, text in corpus.checked(spec, rows, max_bytes, "texts"):
        yield Document(source, begin, line, text, digest_of(text.encode()))


def _read(spec: str, text_key: str) -> Iterator[tuple[str, int, int, str]]:
    if corpus.scheme(spec):
        texts = corpus.SCHEMES[corpus.scheme(spec)].read(spec, text_key)
        yield from ((f"{spec}#{number}", 0, 1, text) for number, text in enumerate(texts))
        return
    single = corpus.is_file(spec)
    for name, path in corpus.files(spec):
        begin, line = 0, 1
        for number, text in enumerate(read_file(path, text_key, single)):
            if ending(path) in ROW_READERS:
                yield f"{name}#{number}", 0, 1, text
                continue
            yield name, begin, line, text
            begin, line = begin + len(text), line + text.count("\n")


def cut(document: Document, words: int, lines: int, overlap: int) -> Iterator[Passage]:
    """The passages of a document: `lines` lines each or, if that is 0, `words` words; each begins
    with the last `overlap` words or lines of the one before. White space around them is left out.
    """
    text = document.text
    if lines:
        spans = [match.span() for match in LINE.finditer(text)]
    else:
        spans = [match.span() for match in WORD.finditer(text)]
    size = lines or words
    line, counted = document.line, 0
    for first in range(0, len(spans), size - overlap):
        part = spans[first : first + size]
        raw = text[part[0][0] : part[-1][1]]
        begin = part[0][0] + len(raw) - len(raw.lstrip())
        line, counted = line + text.count("\n", counted, begin), begin
        if content := raw.strip():
            place = document.begin + begin, line
            yield Passage(document.source, *place, content, document.digest[:8].hex())
        if first + size >= len(spans):
            return


def write(folder: Path, passages: Iterator[Passage]) -> int:
    """Writes passages.jsonl and where its lines begin; returns the number of passages."""
    offsets = [0]
    with open(folder / FILE, "wb") as file:
        for passage in passages:
            file.write(json.dumps(passage._asdict(), ensure_ascii=False).encode() + b"\n")
            offsets.append(file.tell())
    write_array(folder / OFFSETS, np.array(offsets, np.uint64))  # in one step: they are complete
    return len(offsets) - 1


class Passages(Sequence):
    """The passages that `write` wrote, read from the file when they are asked for."""

    def __init__(self, folder: Path):
        self.file = open(folder / FILE, "rb")
        self.offsets = np.load(folder / OFFSETS, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, number: int) -> Passage:
        if not 0 <= number < len(self):
            raise IndexError(number)
        begin, end = map(int, self.offsets[number : number + 2])
        # One call of the system, so that threads may share the file.
        return Passage(**parse_object(os.pread(self.file.fileno(), end - begin, begin)))
