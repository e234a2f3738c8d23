"""Splits text into words and keeps facts about each distinct word, for rules that count words.

A word is a run of letters and digits, joined by single dots, apostrophes and, in numbers, commas
("3.5", "example.com", "o'clock", "10,000"), with the dot of an abbreviation ("U.S.", "Mr."); an
English ending after an apostrophe ("'t", "'ll"); a row of dots or hyphens; or one other visible
character.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Possessive quantifiers and the look at what follows a word make it a third faster.
TOKEN = re.compile(
    r"\w++(?:(?=[.,'’/])(?:\.\w+|(?<=\d),\d+|['’](?!(?:s|ll|ve|re|d|m|t)\b)\w+)*"
    r"(?:(?<=\b[^\W\d_])\.(?!\.)|(?<=\b(?:Mr|Dr|Ms|Jr|Sr|St|vs|Co))\.|(?<=\d)/\d+)?)?+"
    r"|[^\w\s](?:(?<=\.)\.+|(?<=-)-+|(?<=['’])(?:s|ll|ve|re|d|m|t)\b)?+"
)
NOT_IN_FOLDED = re.compile(r"[\W_]+")
MOST_WORDS = 1 << 21  # distinct words that a Vocabulary keeps; beyond, it begins anew
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd; of the polynomial hash of an n-gram
SYMBOL, ALPHABETIC = 1, 2  # bits of `Vocabulary.kinds`


class Vocabulary(dict):
    """Word → number, with facts by number: length in characters, kind, a bit for each stop word,
    and stable 64-bit hashes of the word and of its folded form (lower case, letters and digits
    only; 0 if nothing is left)."""

    def __init__(self, stop_words: Sequence[str] = ()):
        super().__init__()
        self.stop_bits = {word: 1 << place for place, word in enumerate(stop_words)}
        self._grow(1 << 16)

    def _grow(self, size: int) -> None:
        kept = len(self)
        for name, kind in (("lengths", np.int64), ("kinds", np.uint8), ("stops", np.uint64),
                           ("hashes", np.uint64), ("folded", np.uint64)):  # fmt: skip
            new = np.zeros(size, kind)
            if kept:
                new[:kept] = getattr(self, name)[:kept]
            setattr(self, name, new)

    def __missing__(self, word: str) -> int:
        number = len(self)
        if number == len(self.lengths):
            self._grow(2 * number)
        self.lengths[number] = len(word)
        letters = word.isalpha() or any(map(str.isalpha, word))
        symbol = not letters and not any(map(str.isalnum, word))
        self.kinds[number] = SYMBOL * symbol | ALPHABETIC * letters
        self.stops[number] = self.stop_bits.get(word, 0)
        self.hashes[number] = stable_hash(word)
        plain = "" if symbol else NOT_IN_FOLDED.sub("", word.lower())
        self.folded[number] = stable_hash(plain) | 1 if plain else 0
        self[word] = number
        return number

    def split(self, texts: Sequence[str]) -> "Words":
        """The words of some documents."""
        if len(self) > MOST_WORDS:
            self.clear()
        tokens = [TOKEN.findall(text) for text in texts]
        counts = np.array([len(words) for words in tokens], np.int64)
        numbers = map(self.__getitem__, itertools.chain.from_iterable(tokens))
        flat = np.fromiter(numbers, np.int64, int(counts.sum()))
        return Words(tokens, flat, counts)


def stable_hash(word: str) -> int:
    """64 bits that are the same in every process and on every machine."""
    raw = hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(raw, "little")


@dataclass
class Words:
    """The words of D documents: as strings, and as numbers of a Vocabulary, one after the other."""

    tokens: list[list[str]]  # [D][words]
    ids: np.ndarray  # [W]
    counts: np.ndarray  # [D] words of each document

    def of(self, chosen: Sequence[int]) -> "Words":
        """The words of some of the documents, in their order."""
        kept = np.zeros(len(self.counts), bool)
        kept[list(chosen)] = True
        return Words(
            [self.tokens[d] for d in chosen], self.ids[kept[self.documents]], self.counts[kept]
        )

    @property
    def documents(self) -> np.ndarray:
        """The document of each word [W]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def per_document(
    ufunc: np.ufunc, values: np.ndarray, counts: np.ndarray, empty: int = 0
) -> np.ndarray:
    """`ufunc` over the values [W] of each document [D]; `empty` where a document has none."""
    found = np.full(len(counts), empty, values.dtype)
    starts, some = np.cumsum(counts) - counts, counts > 0
    if some.any():
        found[some] = ufunc.reduceat(values, starts[some])
    return found


def ngram_hashes(hashes: np.ndarray, counts: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(64-bit hashes of the n-grams that lie within one document, the place where each begins)."""
    if len(hashes) < n:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    width = len(hashes) - n + 1
    grams = hashes[:width].copy()
    for place in range(1, n):
        grams *= MULTIPLIER
        grams += hashes[place : place + width]
    grams ^= grams >> np.uint64(29)
    owner = np.repeat(np.arange(len(counts)), counts)
    begins = np.flatnonzero(owner[:width] == owner[n - 1 :])
    return grams[begins], begins
