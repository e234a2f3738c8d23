"""Spans of sentences that occur more than once, of which all but the first are removed.

Raffel et al. 2020, section 2.2: of every span of three sentences that occurs more than once in the
data, all but one are discarded. A span lies within one document, is compared in lower case, and is
known by its first sentence. Sentences are numbered over all units in the order of the input.

Two exceptions: of a span that overlaps its own copy only the first sentences stay (of six equal
ones, one), and a span that is first in a document that goes as too short, afterwards, is lost.

On the disk: 12 bytes a span and 4 a document. In memory: one range of hashes at a time, as in
`clusters.py`, and one bit a sentence, which says whether a repeated span begins there.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.cleaning.duplicates.clusters import within
from data.cleaning.text.c4 import split
from data.cleaning.text.words import ngram_hashes


def sentences_of(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(64-bit hashes of the sentences [S] of some documents, their number in each [D]). Chance
    matches of spans do not matter: three are expected among 1.1e10 spans, more than 1 TB has."""
    found = [split(text) for text in texts]
    blake = hashlib.blake2b
    raw = b"".join(
        blake(sentence.rstrip().lower().encode(), digest_size=8).digest()
        for sentences in found
        for sentence in sentences
    )
    return np.frombuffer(raw, "<u8"), np.array([len(one) for one in found], np.int64)


def packed(hashes: np.ndarray, counts: np.ndarray, length: int) -> bytes:
    """The spans of `length` sentences, as `Spans` reads them, given what `sentences_of` found."""
    grams, begins = ngram_hashes(hashes, counts, length)
    order = np.argsort(grams, kind="stable")
    parts = grams[order].astype("<u8"), begins[order].astype("<u4"), counts.astype("<u4")
    return b"".join(part.tobytes() for part in parts)


class Spans:
    """The spans of the documents of one file, mapped into memory: only what is used is read.

    `hashes` [P] are sorted, `numbers` [P] are the first sentences of the spans within the file, and
    `counts` [D] are the sentences of its documents.
    """

    def __init__(self, path: Path, documents: int):
        raw = np.memmap(path, np.uint8, "r")
        spans = (len(raw) - 4 * documents) // 12
        self.hashes = raw[: 8 * spans].view("<u8")
        self.numbers = raw[8 * spans : 12 * spans].view("<u4")
        self.counts = raw[12 * spans :].view("<u4")


def repeated(
    files: Sequence[Path],
    sizes: Sequence[tuple[int, int]],
    kept: np.ndarray,
    part: int,
    parts: int,
) -> np.ndarray:
    """The numbers [R] of the first sentences of spans that occur before, for one of the ranges of
    hashes.

    `sizes` are the (documents, sentences) of each file. Documents that are not `kept` [N] are left
    out.
    """
    hashes, numbers, document, sentence = [], [], 0, 0
    for file, (documents, sentences) in zip(files, sizes, strict=True):
        unit = Spans(file, documents)
        here = within(unit.hashes, part, parts)
        places = np.array(unit.numbers[here])
        if len(places):
            owner = np.searchsorted(np.cumsum(unit.counts), places, "right")
            left = kept[document + owner]
            hashes.append(unit.hashes[here][left])
            numbers.append(places[left].astype(np.uint64) + np.uint64(sentence))
        document, sentence = document + documents, sentence + sentences
    if not hashes:
        return np.zeros(0, np.uint64)
    hashed, number = np.concatenate(hashes), np.concatenate(numbers)
    order = np.lexsort((number, hashed))
    again = hashed[order][1:] == hashed[order][:-1]
    return number[order][1:][again]


class Marks:
    """One bit for each of `sentences` sentences; all are 0 at first."""

    def __init__(self, sentences: int):
        self.bits = np.zeros(-(-sentences // 8), np.uint8)

    def add(self, numbers: np.ndarray) -> None:
        """Sets the bits of some sentences."""
        bits = np.uint8(1) << (numbers & np.uint64(7)).astype(np.uint8)
        np.bitwise_or.at(self.bits, (numbers >> np.uint64(3)).astype(np.int64), bits)

    def between(self, first: int, stop: int) -> np.ndarray:
        """The sentences whose bits are set from `first` to before `stop`, counted from `first`."""
        bits = np.unpackbits(self.bits[first // 8 : -(-stop // 8)], bitorder="little")
        return np.flatnonzero(bits[first % 8 :][: stop - first])


def by_document(numbers: np.ndarray, counts: np.ndarray) -> dict[int, list[int]]:
    """The sentences of each document, counted from its first, given sorted numbers over documents
    with these `counts` of sentences [D]. Documents without any are left out."""
    ends = np.cumsum(counts, dtype=np.int64)
    owner = np.searchsorted(ends, numbers, "right")
    places = numbers - (ends[owner] - counts[owner])
    found: dict[int, list[int]] = {}
    for document, place in zip(owner.tolist(), places.tolist(), strict=True):
        found.setdefault(document, []).append(place)
    return found


def without(text: str, begins: Sequence[int], length: int) -> tuple[str, int, str]:
    """(the text without the spans of `length` sentences that begin at some sentences, the number of
    sentences left, the first stretch that is removed). Line ends around what goes are kept."""
    sentences = split(text)
    gone = {place + ahead for place in begins for ahead in range(length)}
    left: list[str] = []
    for place, sentence in enumerate(sentences):
        if place not in gone:
            left.append(sentence)
        elif left:
            body, gap = left[-1].rstrip(), sentence[len(sentence.rstrip()) :]
            if gap.count("\n") > left[-1][len(body) :].count("\n"):
                left[-1] = body + gap
    stretch = begins[0]
    while stretch in gone:
        stretch += 1
    return "".join(left).strip(), len(left), "".join(sentences[begins[0] : stretch]).rstrip()
