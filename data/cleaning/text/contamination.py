"""N-grams of words that evaluation sets and training text share (Brown et al. 2020, appendix C)."""

from collections.abc import Iterable, Sequence

import numpy as np

from data.cleaning.text.words import TOKEN, Vocabulary, Words, ngram_hashes


def grams_of(texts: Iterable[str], n: int) -> np.ndarray:
    """The sorted hashes of all n-grams of folded words in evaluation texts. Texts with fewer words
    have none."""
    vocabulary, found = Vocabulary(), []
    batch: list[str] = []

    def flush() -> None:
        if batch:
            words = vocabulary.split(batch)
            hashes, counts = folded(words, vocabulary)[:2]
            found.append(np.unique(ngram_hashes(hashes, counts, n)[0]))
            batch.clear()

    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size > 1 << 20:
            flush()
            size = 0
    flush()
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def folded(words: Words, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(hashes of the folded words, their number in each document [D], their places in
    `words.ids`). Punctuation is left out."""
    hashes = vocabulary.folded[words.ids]
    places = np.flatnonzero(hashes)
    counts = np.bincount(words.documents[places], minlength=len(words.counts))
    return hashes[places], counts, places


def contaminated(
    hashes: np.ndarray, counts: np.ndarray, n: int, grams: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(n-grams of each document that an evaluation set has [D], the places of the first words of
    these n-grams among the folded words). A hash has 64 bits, so chance matches do not occur in
    practice: 1e12 n-grams against 1e6 are expected to have 5e-2 of them."""
    found, begins = ngram_hashes(hashes, counts, n)
    if not len(grams) or not len(found):
        return np.zeros(len(counts), np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(grams, found), len(grams) - 1)
    begins = begins[grams[at] == found]
    owner = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(owner[begins], minlength=len(counts)), begins


def without_spans(text: str, n: int, grams: np.ndarray, around: int) -> tuple[str, list[str]]:
    """(the text without the shared n-grams and `around` characters on both sides of each, widened
    to whole words; the spans that were cut)."""
    vocabulary = Vocabulary()
    matches = list(TOKEN.finditer(text))
    words = vocabulary.split([text])
    hashes, counts, places = folded(words, vocabulary)
    _, begins = contaminated(hashes, counts, n, grams)
    cut = _joined(
        [
            (max(0, matches[places[b]].start() - around), matches[places[b + n - 1]].end() + around)
            for b in begins
        ]
    )
    left, spans, end = [], [], 0
    for start, stop in cut:
        while start > end and not text[start - 1].isspace():
            start -= 1
        while stop < len(text) and not text[stop].isspace():
            stop += 1
        left.append(text[end:start])
        spans.append(text[start:stop])
        end = stop
    left.append(text[end:])
    return "\n".join(filter(None, (part.strip() for part in left))), spans


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted spans, those that touch joined."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
