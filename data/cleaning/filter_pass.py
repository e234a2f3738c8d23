"""The first pass over a unit: what can be decided about a document without the others.

Reads, normalises, detects the language, applies the rules of C4 and Gopher, and writes the
documents that are left with their signatures. A batch of documents is in memory at a time.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from data.atomic import write_atomic
from data.cleaning.duplicates import signatures, spans
from data.cleaning.input.raw import Damaged, Document
from data.cleaning.input.reading import documents
from data.cleaning.input.units import Unit
from data.cleaning.records import Tally
from data.cleaning.rules import judged
from data.cleaning.settings import read_words
from data.cleaning.text import c4, contamination, gopher, language, normalise
from data.cleaning.text.words import Vocabulary, Words

BATCH_CHARACTERS, BATCH_DOCUMENTS = 1 << 20, 1 << 14
LARGEST = 16 << 20  # bytes of a document
# Whose signatures are in memory and in one file, at most about.
DOCUMENTS_AT_ONCE, SENTENCES_AT_ONCE = 1 << 19, 1 << 22
LEVEL = 1  # of zstandard, for files that the last pass reads once


class Filter:
    """The stages of the first pass, for one config. `cfg` is the config as plain dicts."""

    def __init__(self, cfg: Mapping[str, Any], grams: np.ndarray):
        self.cfg, self.grams, self.skip = cfg, grams, frozenset(cfg["skip"])
        self.words = Vocabulary(cfg["gopher_quality"]["stop_words"])
        self.on = on = {name: one["on"] for name, one in cfg.items() if "on" in one}
        self.spans = on["spans"] and "repeated_span" not in self.skip
        self.repair = normalise.repair() if on["normalise"] and cfg["normalise"]["ftfy"] else None
        self.detect = language.detector(cfg["language"]["characters"]) if on["language"] else None
        listed = cfg["c4"]["bad_words"] if on["c4"] else ""
        self.bad_word = c4.bad_words(read_words(listed) if listed else [])

    def unit(self, unit: Unit, folder: Path) -> dict[str, Any]:
        """Writes the survivors (.jsonl.zst), signatures (.sig) and spans of sentences (.spans) of a
        unit into `folder`. Returns its record: the counts, and how many documents and sentences
        each .sig and .spans file has."""
        tally, parts, contaminated, kept = Tally(), [], [], 0
        pending: list[tuple[np.ndarray, ...]] = []

        def flush() -> None:
            exact, bands, sentences, counts = map(np.concatenate, zip(*pending, strict=True))
            place = folder, unit.number, len(parts)
            write_atomic(signature_file(*place), signatures.packed(exact, bands))
            if self.spans:
                length = self.cfg["spans"]["sentences"]
                write_atomic(span_file(*place), spans.packed(sentences, counts, length))
            parts.append([len(exact), len(sentences)])
            pending.clear()

        with written(survivor_file(folder, unit.number), LEVEL) as stream:
            for batch in self._batches(unit, tally):
                left, (bands, shared) = self._judged(batch, tally)
                if left:
                    texts = [text for _, text in left]
                    sentences = spans.sentences_of(texts if self.spans else [])
                    pending.append((signatures.hashes_of(texts), bands, *sentences))
                    contaminated += (kept + np.flatnonzero(shared)).tolist()
                kept += len(left)
                rows = (json.dumps(row, ensure_ascii=False) for row in left)
                stream.write("".join(row + "\n" for row in rows).encode())
                documents, sentences = (sum(len(one[i]) for one in pending) for i in (0, 2))
                if documents >= DOCUMENTS_AT_ONCE or sentences >= SENTENCES_AT_ONCE:
                    flush()
            if pending:
                flush()
        return {"parts": parts, "contaminated": contaminated, "tally": tally.about}

    def _batches(self, unit: Unit, tally: Tally) -> Iterator[list[Document]]:
        """Documents of about BATCH_CHARACTERS characters. Counts what cannot be read, too."""
        batch, size = [], 0
        given = self.cfg["input"]
        for piece in unit.pieces:

            def bad(where: str, why: str) -> None:
                tally.fault("rows", where, why)

            try:
                for one in documents(piece, given["text_key"], given["max_expansion"], bad):
                    n_bytes = len(one.text.encode())
                    tally.seen("read", one.text, n_bytes)
                    if one.other_encoding and "other_encoding" not in self.skip:
                        tally.changed("other_encoding", one.where, one.other_encoding, one.text)
                    if n_bytes > LARGEST:
                        tally.removed("too_large", one.where, one.text)
                        continue
                    batch.append(one)
                    size += len(one.text)
                    if size >= BATCH_CHARACTERS or len(batch) == BATCH_DOCUMENTS:
                        yield batch
                        batch, size = [], 0
            except Damaged as damage:
                tally.fault("files", piece.name, str(damage))
        if batch:
            yield batch

    def _judged(
        self, batch: list[Document], tally: Tally
    ) -> tuple[list[tuple[str, str]], tuple[np.ndarray, np.ndarray]]:
        """(place, text) of the documents of a batch that no rule removes, with what
        `_of_words` finds in them."""
        left = []
        for one in batch:
            text = self._normalised(one, tally)
            if not text or text.isspace():
                tally.removed("empty", one.where, one.text)
            elif self.detect is None or self._in_language(one.where, text, tally):
                left.append((one.where, text))
        if self.on["c4"]:
            left = self._c4(left, tally)
        words = self.words.split([text for _, text in left])
        for stage in ("gopher_quality", "gopher_repetition"):
            if self.on[stage] and left:
                left, words = self._gopher(stage, left, words, tally)
        return left, self._of_words(left, words)

    def _normalised(self, one: Document, tally: Tally) -> str:
        text = one.text
        if self.repair and "mojibake" not in self.skip:
            fixed = self.repair(text)
            if fixed != text:
                tally.changed("mojibake", one.where, 1, fixed, _shrunk(text, fixed))
                text = fixed
        if self.on["normalise"] and "unicode" not in self.skip:
            plain = normalise.normalised(text, self.cfg["normalise"]["form"])
            if plain != text:
                tally.changed("unicode", one.where, 1, plain, _shrunk(text, plain))
                text = plain
        return text

    def _in_language(self, where: str, text: str, tally: Tally) -> bool:
        code, probability = self.detect(text)
        tally.language(code)
        if code not in self.cfg["language"]["keep"]:
            rule = "other_language"
        elif probability < self.cfg["language"]["min_probability"]:
            rule = "unsure_language"
        else:
            return True
        if rule in self.skip:
            return True
        tally.removed(rule, where, text, f"{code} {probability:.2f}")
        return False

    def _c4(self, given: list[tuple[str, str]], tally: Tally) -> list[tuple[str, str]]:
        section, left = self.cfg["c4"], []
        for where, text in given:
            found = c4.clean(text, section, self.skip, self.bad_word)
            few = found.sentences < section["min_sentences"] and "few_sentences" not in self.skip
            if rule := found.rule or ("few_sentences" if few else ""):
                value = found.sentences if rule == "few_sentences" else None
                tally.removed(rule, where, text, value)
                continue
            for rule, times in found.lines.items():
                tally.changed(rule, where, times, found.first[rule], found.size[rule])
            left.append((where, found.text))
        return left

    def _gopher(
        self, stage: str, given: list[tuple[str, str]], words: Words, tally: Tally
    ) -> tuple[list[tuple[str, str]], Words]:
        texts, section = [text for _, text in given], self.cfg[stage]
        if stage == "gopher_quality":
            measures = gopher.quality(texts, words, self.words)
        else:
            measures = gopher.repetition(texts, words, self.words, section)
        first, rules = judged(measures, stage, section, self.skip)
        for place in np.flatnonzero(first >= 0):
            rule = rules[first[place]]
            tally.removed(rule.name, *given[place], round(float(measures[rule.measure][place]), 4))
        kept = np.flatnonzero(first < 0).tolist()
        return [given[place] for place in kept], words.of(kept)

    def _of_words(
        self, given: list[tuple[str, str]], words: Words
    ) -> tuple[np.ndarray, np.ndarray]:
        """(the bands [D, bands] of documents, how many n-grams of evaluation sets each has [D])."""
        hashes, counts, _ = contamination.folded(words, self.words)
        bands = np.zeros((len(counts), 0), np.uint64)
        if self.on["minhash"] and len(counts):
            bands = signatures.bands_of(hashes, counts, self.cfg["minhash"])
            for place in np.flatnonzero(counts == 0):  # without words, equal texts only
                bands[place] = signatures.hashes_of([given[place][1]])[0, 0]
        n = self.cfg["decontaminate"]["ngram"]
        return bands, contamination.contaminated(hashes, counts, n, self.grams)[0]


def survivor_file(folder: Path, unit: int) -> Path:
    """The documents of a unit that the first pass keeps."""
    return folder / f"{unit:06}.jsonl.zst"


def signature_file(folder: Path, unit: int, part: int) -> Path:
    """The signatures of some of these documents, in their order."""
    return folder / f"{unit:06}-{part:03}.sig"


def span_file(folder: Path, unit: int, part: int) -> Path:
    """The spans of sentences of the same documents."""
    return folder / f"{unit:06}-{part:03}.spans"


@contextlib.contextmanager
def written(path: Path, level: int) -> Iterator[Any]:
    """A stream that compresses into a file, which has its name only when it is whole."""
    partial = path.with_name(path.name + ".part")
    compressor = zstandard.ZstdCompressor(level=level)
    with open(partial, "wb") as file:
        with compressor.stream_writer(file, closefd=False) as stream:
            yield stream
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _shrunk(before: str, after: str) -> int:
    return len(before.encode()) - len(after.encode())


def survivors(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of the documents that the first pass wrote."""
    with (
        open(path, "rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream,
    ):
        for line in io.BufferedReader(stream, 1 << 20):
            where, text = json.loads(line)
            yield where, text
