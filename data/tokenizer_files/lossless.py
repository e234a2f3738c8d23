"""Any bytes as tokens, and back without a loss: what the vocabulary cannot spell is kept beside.

A file becomes tokens whose bytes, joined, are the file, except for `gaps`: bytes that no token
spells, with the number of tokens before them. Text is encoded as in training wherever that gives
back its bytes; the rest (invalid UTF-8, unknown characters, what a tokenizer normalises) takes the
longest token that fits at each place.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data.tokenizer import Tokenizer

# Bytes that are no UTF-8, as Python's "surrogateescape" represents them.
INVALID = re.compile("[\udc80-\udcff]+")
# Where a text is cut to save most of it: after lines or, where the tokenizer puts a space before
# every text, before spaces.
AFTER_LINES, BEFORE_SPACES = re.compile(r"(?<=\n)"), re.compile(r"(?= )")


class Spelled(NamedTuple):
    """A file as tokens int32 [N], and its gaps: (tokens before it, its bytes), in order."""

    tokens: np.ndarray
    gaps: Sequence[tuple[int, bytes]]


def usable(tokenizer: Tokenizer, vocab_size: int) -> np.ndarray:
    """Whether `spell` may give each token [vocab_size]: those that stand for bytes."""
    usable_V = np.zeros(vocab_size, bool)
    usable_V[: tokenizer.vocab_size] = [len(piece) > 0 for piece in tokenizer.pieces]
    if tokenizer.unknown is not None:
        usable_V[tokenizer.unknown] = False
    return usable_V


def spell(tokenizer: Tokenizer, content: bytes) -> Spelled:
    """The tokens and gaps of a file. If the tokenizer puts a space before every text, they spell
    that space too, which `join` removes."""
    known = _Pieces(tokenizer)
    text, end = content.decode("utf-8", "surrogateescape"), 0
    for bad in INVALID.finditer(text):
        known.add_text(text[end : bad.start()])
        known.add_bytes(bad.group().encode("utf-8", "surrogateescape"))
        end = bad.end()
    known.add_text(text[end:])
    tokens = np.concatenate([np.zeros(0, np.int32), *known.tokens]).astype(np.int32)
    return Spelled(tokens, known.gaps)


def join(tokenizer: Tokenizer, spelled: Spelled) -> bytes:
    """The file that `spell` was given."""
    pieces = [tokenizer.pieces[token] for token in spelled.tokens.tolist()]
    parts, end = [], 0
    for place, raw in spelled.gaps:
        parts += [*pieces[end:place], raw]
        end = place
    return b"".join([*parts, *pieces[end:]]).removeprefix(tokenizer.dummy_prefix)


class _Pieces:
    """The tokens of a file so far, and the vocabulary by spelling."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.space = tokenizer, tokenizer.dummy_prefix
        self.usable_V = usable(tokenizer, tokenizer.vocab_size)
        # Of tokens with equal bytes the last one is the usual one; byte tokens come first.
        self.ids = {tokenizer.pieces[i]: int(i) for i in np.flatnonzero(self.usable_V)}
        self.lengths = sorted({len(piece) for piece in self.ids}, reverse=True)
        self.tokens: list[np.ndarray] = []
        self.gaps: list[tuple[int, bytes]] = []
        self.count = 0

    def add_text(self, text: str) -> None:
        """Adds text, in parts if it is not given back as a whole."""
        if self._encoded(text):
            return
        cut = BEFORE_SPACES if self.space else AFTER_LINES
        for part in filter(None, cut.split(text)):
            if not self._encoded(part):
                self.add_bytes(part.encode())

    def _encoded(self, text: str) -> bool:
        """Adds text as in training; False, and adds nothing, if that does not spell it."""
        wanted = text.encode()
        if self.space and self._at_start():
            wanted = self.space + wanted
        elif self.space and text.startswith(" "):
            text = text[1:]
        tokens = self.tokenizer.encode(text)
        pieces = self.tokenizer.pieces
        same = b"".join([pieces[token] for token in tokens.tolist()]) == wanted
        if same and self.usable_V[tokens].all():
            self._add(tokens)
            return True
        return False

    def add_bytes(self, raw: bytes) -> None:
        """Adds bytes as the longest tokens that fit; those that fit none become a gap."""
        if self.space and self._at_start():
            raw = self.space + raw
        found: list[int] = []
        for token, byte in self._longest(raw):
            if token is not None:
                found.append(token)
                continue
            place, before = self.count + len(found), self.gaps[-1:]
            if before and before[0][0] == place:
                self.gaps[-1] = place, before[0][1] + byte
            else:
                self.gaps.append((place, byte))
        self._add(np.array(found, np.int32))

    def _longest(self, raw: bytes) -> Iterator[tuple[int | None, bytes]]:
        """(token, b"") or (None, a byte that begins no token)."""
        at = 0
        while at < len(raw):
            for length in self.lengths:
                piece = raw[at : at + length]
                if piece in self.ids:
                    yield self.ids[piece], b""
                    at += len(piece)
                    break
            else:
                yield None, raw[at : at + 1]
                at += 1

    def _at_start(self) -> bool:
        return not self.count and not self.gaps

    def _add(self, tokens: np.ndarray) -> None:
        self.tokens.append(tokens)
        self.count += len(tokens)
