"""Real text with the faults of the web, drawn from a seed: what cleaning is measured on.

    corrupted:CORPUS[:KEY=VALUE…]        such as corrupted:book.txt:copied=.3:seed=1

CORPUS is any corpus of files. Its documents are cut at line ends into pages of about `size` bytes.
A page may get navigation lines around it, or be decoded with a wrong encoding. Between the pages
stand copies of earlier ones, exact or with a few words changed, and junk: lists of keywords, a
phrase over and over, scripts, and pages with their letters shuffled. All draws follow from the seed
and the number of the page, so equal specs over equal text give equal documents. The kinds of faults
are those that Raffel et al. 2020 (C4), Rae et al. 2021 (Gopher) and Lee et al. 2022 remove.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from data.sources.specs.settings import settings

VERSION = 1  # of the draws; part of a corpus's identity
SCHEME = "corrupted"
MOST_COPIES = 16  # of one page
WAITING = 0.1  # share of the copies not yet written that follow each page, on average
ABOVE = (
    "Home | About us | Products | Contact | Site map",
    "Skip to main content",
    "Please enable javascript in your browser to view this page.",
    "Login Register My account",
)
BELOW = (
    "This site uses cookies. Read our privacy policy and terms of use.",
    "Share on Facebook Tweet this Print Email",
    "Related posts",
    "Copyright 2019 All rights reserved",
    "« Previous 1 2 3 4 5 Next »",
)
KEYWORDS = (
    "cheap flights hotel deals credit loan casino poker bonus free download ringtones".split()
)
SCRIPT = "function load(id) { var node = document.getElementById(id); if (!node) { return; } }"


@dataclass(frozen=True)
class Corruption:
    """The faults; the fields after the first are the keys of a spec."""

    corpus: str
    seed: int = 0
    size: int = 2000  # bytes of a page, about
    copied: float = 0.15  # share of the pages with copies
    altered: float = 0.5  # share of the copies with words changed
    framed: float = 0.5  # share of the pages with navigation around them
    garbled: float = 0.1  # share of the pages decoded with a wrong encoding
    junk: float = 0.2  # pages of junk for each page of text

    def documents(self, texts: Iterable[str]) -> Iterator[str]:
        """The documents of `texts` with faults, in an order that depends on the seed alone."""
        waiting: list[str] = []  # copies
        draw = random.Random(0)
        for number, page in enumerate(pages(texts, self.size)):
            draw = random.Random(f"{VERSION}/{self.seed}/{number}")
            yield self._faulty(draw, page)
            if draw.random() < self.copied:
                waiting += [page] * min(MOST_COPIES, int(1 / (1 - draw.random())))
            if draw.random() < self.junk:
                yield junk(draw, page)
            while waiting and draw.random() < min(0.9, WAITING * len(waiting)):
                yield self._copy(draw, waiting.pop(int(draw.random() * len(waiting))))
        while waiting:
            yield self._copy(draw, waiting.pop(int(draw.random() * len(waiting))))

    def _faulty(self, draw: random.Random, page: str) -> str:
        if draw.random() < self.garbled:
            page = page.replace(" 's", "’s").replace('"', "”")
            page = page.encode().decode("cp1252", "replace")
        if draw.random() < self.framed:
            page = "\n".join([*picked(draw, ABOVE), page, *picked(draw, BELOW)])
        return page

    def _copy(self, draw: random.Random, page: str) -> str:
        if draw.random() >= self.altered:
            return page
        words = page.split(" ")
        for _ in range(1 + len(words) // 200):
            words[int(draw.random() * len(words))] = words[int(draw.random() * len(words))]
        return self._faulty(draw, " ".join(words))


def pages(texts: Iterable[str], size: int) -> Iterator[str]:
    """The texts, cut at line ends into pages of at least `size` bytes where they are longer."""
    for text in texts:
        lines, n_bytes = [], 0
        for line in text.splitlines(keepends=True):
            lines.append(line)
            n_bytes += len(line.encode())
            if n_bytes >= size:
                yield "".join(lines)
                lines, n_bytes = [], 0
        if lines:
            yield "".join(lines)


def picked(draw: random.Random, lines: tuple[str, ...]) -> list[str]:
    """About half of the lines, in their order."""
    return [line for line in lines if draw.random() < 0.5]


def junk(draw: random.Random, page: str) -> str:
    """A page that teaches no language, as long as `page`."""
    kind, n_words = int(draw.random() * 4), len(page.split())
    if kind == 0:
        return " ".join(KEYWORDS[int(draw.random() * len(KEYWORDS))] for _ in range(n_words))
    if kind == 1:
        phrase = page.split()[: 3 + int(draw.random() * 5)]
        return " ".join(phrase * (1 + n_words // max(1, len(phrase))))
    if kind == 2:
        return "\n".join([SCRIPT] * (1 + len(page) // len(SCRIPT)))
    letters = list(page)
    for last in range(len(letters) - 1, 0, -1):  # Fisher–Yates
        other = int(draw.random() * (last + 1))
        letters[last], letters[other] = letters[other], letters[last]
    return "".join(letters)


KEYS = {  # key → (how it is read, what it means)
    "seed": (int, "of the draws"),
    "size": (int, "bytes of a page"),
    "copied": (float, "share of the pages with copies"),
    "altered": (float, "share of the copies with words changed"),
    "framed": (float, "share of the pages with navigation around them"),
    "garbled": (float, "share of the pages decoded with a wrong encoding"),
    "junk": (float, "pages of junk for each page of text"),
}


def parse(spec: str) -> Corruption:
    """The corruption of a spec; ValueError for no corpus, an unknown key or a bad value."""
    corpus, parts = spec.partition(":")[2], []
    while "=" in corpus.rpartition(":")[2]:
        corpus, _, part = corpus.rpartition(":")
        parts.append(part)
    given = dict(settings(spec, parts, KEYS))
    for key, value in given.items():
        least, most = {"size": (1, 1 << 20), "seed": (0, 1 << 32)}.get(key, (0, 1))
        if not least <= value <= most:
            raise ValueError(f"data.corpora={spec!r}: {key}={value} must be {least} to {most}")
    if not corpus:
        raise ValueError(f"data.corpora={spec!r} names no text; give corrupted:CORPUS")
    return Corruption(corpus, **given)
