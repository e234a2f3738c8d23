"""BM25 (Robertson et al. 1994) by the package bm25s: which passages share rare words with a query.

The score of a passage is the sum over the query's words, each as often as it occurs there, of
idf × weight of its frequency. The variants differ in both (Kamphuis et al. 2020). `okapi` gives the
scores of BM25Okapi of the package rank_bm25:

    idf(w) = log((N - n + ½) / (n + ½)) for a word in n of N passages; a word in more than half of
             them, whose idf would be below 0, has ε = ¼ of the mean idf of all words
    weight = f (k₁ + 1) / (f + k₁ (1 - b + b · length / mean length)), f its count in the passage

bm25s has no such floor and, in the variants lucene and robertson, no factor k₁ + 1. An `okapi`
index is that of lucene, whose idf is above 0 for every word, with each word's column rescaled.
"""

import json
import logging
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

VARIANTS = ("okapi", "lucene", "robertson", "atire", "bm25+", "bm25l")
EPSILON = 0.25  # of rank_bm25
WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text that BM25 counts: runs of letters, digits and underscores, in lower
    case."""
    return WORD.findall(text.lower())


def require_package() -> Any:
    """The package bm25s. ValueError, in one line, if it is not installed."""
    try:
        import bm25s
    except ImportError:
        raise ValueError(
            "kind=bm25 needs the package bm25s; run: pip install 'isoflop[retrieval]'"
        ) from None
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every step otherwise
    return bm25s


def build(
    folder: Path,
    passages: Sequence[Sequence[str]],
    variant: str = "okapi",
    k1: float = 1.5,
    b: float = 0.75,
    delta: float = 0.5,
) -> None:
    """Writes the index of passages, each a list of words, into a folder. `delta` is of bm25+
    and bm25l. ValueError if no passage has a word."""
    if not any(passages):
        raise ValueError("no passage holds a word; give other texts")
    method = "lucene" if variant == "okapi" else variant
    made = require_package().BM25(k1=k1, b=b, delta=delta, method=method)
    made.index([list(one) for one in passages], show_progress=False)
    if variant == "okapi":
        as_okapi(made, len(passages), k1)
    made.save(folder, show_progress=False)


def as_okapi(made: Any, count: int, k1: float) -> None:
    """Rescales the columns of a lucene index of `count` passages to the scores of BM25Okapi."""
    indptr = np.asarray(made.scores["indptr"])
    frequency = np.diff(indptr).astype(float)  # passages that have each word
    # The vocabulary of bm25s may hold an empty word, which no passage has.
    known = np.maximum(frequency, 1)
    idf = np.log((count - known + 0.5) / (known + 0.5))
    mean = idf[frequency > 0].mean()
    idf = np.where(idf < 0, EPSILON * mean, idf)
    lucene = np.log1p((count - known + 0.5) / (known + 0.5))
    factor = np.repeat((k1 + 1) * idf / lucene, frequency.astype(int))
    made.scores["data"] = (made.scores["data"] * factor).astype(np.float32)


class Scores:
    """An index that `build` wrote."""

    def __init__(self, folder: Path):
        """ValueError if the package bm25s is missing or cannot read the index."""
        package = require_package()
        try:
            self.index = package.BM25.load(folder, load_corpus=False, mmap=True)
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{folder}: bm25s cannot read it ({error}); build it again") from None

    def __call__(self, query: Sequence[str]) -> np.ndarray:
        """The score of each passage for a query's words, float32 [P]; unknown words add nothing."""
        known = self.index.get_tokens_ids(list(query))
        return self.index.get_scores_from_ids(known)

    def sharing(self, query: Sequence[str]) -> np.ndarray:
        """Whether each passage has a word of the query [P]. Its score does not say so: in a small
        collection the okapi score of a shared word is 0 or less."""
        columns = self.index.scores
        found = np.zeros(columns["num_docs"], bool)
        for known in self.index.get_tokens_ids(list(query)):
            first, end = columns["indptr"][known : known + 2]
            found[columns["indices"][first:end]] = True
        return found


def best(scores: np.ndarray, k: int, allowed: np.ndarray) -> list[tuple[int, float]]:
    """The `k` passages of the highest scores among those that are `allowed` [P], best first, the
    earlier of equal ones first."""
    scores = np.where(allowed, scores, -math.inf)
    k = min(k, len(scores))
    if not k:
        return []
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    among = np.flatnonzero(scores >= least)
    order = among[np.lexsort((among, -scores[among]))][:k]
    return [(int(i), float(scores[i])) for i in order if allowed[i]]
