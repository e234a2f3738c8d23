"""The word vectors of a run: words by their spelling, and cosine similarities."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.restored import family_of, restored
from model import families

BLOCK = 1 << 25  # cosines that exist at one time


@dataclass(frozen=True)
class WordVectors:
    """The vectors of the tokens that spell something, scaled to length 1. A word names the token
    that spells it with a space before it, or else without."""

    words: list[str]  # in the order of the vocabulary
    unit: Any  # float [W, D], dense or sparse
    index: dict[str, int]

    def find(self, word: str) -> int | None:
        """The place of a word as it is spelt, or else in lower case; None if it is unknown."""
        return self.index.get(word, self.index.get(word.lower()))

    def require(self, word: str, flag: str) -> int:
        """The place of a word. ValueError names it, with words that are spelt like it."""
        if (place := self.find(word)) is not None:
            return place
        near = difflib.get_close_matches(word.lower(), self.words, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "use a word of the training text"
        raise ValueError(
            f"--{flag}: {word!r} is not among the {len(self.words):,} words of this model; {hint}"
        )

    def cosines(self, queries: Any) -> np.ndarray:
        """The cosines [Q, W] of rows of `unit`, or of sums of rows, with every word. Those of a sum
        are multiplied by its length, which changes no order."""
        found = queries @ self.unit.T
        return found.toarray() if sparse.issparse(found) else np.asarray(found)


def open_vectors(run: Path) -> WordVectors:
    """The word vectors in a run's folder. ValueError or FileNotFoundError, in one line, for a run
    without any."""
    family, cfg = family_of(run)
    if not hasattr(family, "vectors"):
        known = [name for name, other in families.FAMILIES.items() if hasattr(other, "vectors")]
        raise ValueError(
            f"run={run} has model.family={families.name_of(family)!r}, which has no vector for "
            f"each token; these have: {', '.join(known)}"
        )
    tokenizer = read_tokenizer(run, cfg.vocab_size, "run")
    fitted, _ = restored(run, family, cfg)
    return of_tokens(tokenizer, family.vectors(cfg, fitted))


def of_tokens(tokenizer: Tokenizer, vectors: Any) -> WordVectors:
    """The vectors [V, D], dense or sparse, of the tokens of a tokenizer."""
    pieces = [piece.decode("utf-8", "replace") for piece in tokenizer.pieces]
    ids = [i for i, piece in enumerate(pieces) if piece.strip() and i != tokenizer.unknown]
    words = [pieces[i].strip() for i in ids]
    index: dict[str, int] = {}
    for spaced in (False, True):  # a token with a space before it begins a word, so it wins
        chosen = (n for n in reversed(range(len(ids))) if pieces[ids[n]].startswith(" ") == spaced)
        index |= {words[n]: n for n in chosen}
    return WordVectors(words, scaled(vectors, ids), index)


def scaled(vectors: Any, ids: Sequence[int]) -> Any:
    """Rows of dense or sparse vectors, scaled to length 1; zeros stay."""
    if sparse.issparse(vectors):
        chosen = vectors.tocsr()[ids]
        length = np.sqrt(chosen.power(2).sum(1).A1)
        return (sparse.diags(1 / np.maximum(length, 1e-30)) @ chosen).tocsr()
    chosen = np.asarray(vectors, np.float32)[ids]
    return chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-30)


def nearest(
    vectors: WordVectors, query: Any, without: Sequence[int], n: int
) -> list[tuple[str, float]]:
    """The `n` words of the highest cosine with a row [1, D], and their cosines, best first."""
    cosine = vectors.cosines(query)[0]
    length = np.sqrt((query.power(2) if sparse.issparse(query) else np.square(query)).sum())
    cosine = cosine / max(float(length), 1e-30)
    cosine[list(without)] = -np.inf
    best = np.argsort(-cosine, kind="stable")[: min(n, len(cosine) - len(set(without)))]
    return [(vectors.words[i], float(cosine[i])) for i in best]


def neighbours(vectors: WordVectors, word: str, n: int) -> list[tuple[str, float]]:
    """The nearest words of a word; ValueError if it is unknown."""
    place = vectors.require(word, "word")
    return nearest(vectors, vectors.unit[[place]], [place], n)


def analogy(vectors: WordVectors, asked: str, n: int) -> list[tuple[str, float]]:
    """What is to the third word as the second is to the first: the words nearest to b - a + c, none
    of the three (Mikolov et al. 2013c, section 4). ValueError names an unknown word."""
    words = asked.split()
    if len(words) != 3:
        raise ValueError(
            f"analogy={asked!r} has {len(words)} words; give three, such as 'man king woman'"
        )
    a, b, c = (vectors.require(word, "analogy") for word in words)
    query = vectors.unit[[b]] - vectors.unit[[a]] + vectors.unit[[c]]
    return nearest(vectors, query, [a, b, c], n)
