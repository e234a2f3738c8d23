"""What Gopher's quality and repetition rules measure (Rae et al. 2021, table A1).

All documents of a batch are measured together with numpy. Repeated n-grams are bounded first, from
above; only documents whose bound exceeds a threshold are counted word by word.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data.cleaning.text.words import (
    ALPHABETIC,
    SYMBOL,
    Vocabulary,
    Words,
    ngram_hashes,
    per_document,
)

TOP, DUPLICATE = (2, 3, 4), (5, 6, 7, 8, 9, 10)  # lengths of the n-grams
PARAGRAPHS, LINES = re.compile(r"\n{2,}"), re.compile(r"\n+")


def quality(texts: Sequence[str], words: Words, vocabulary: Vocabulary) -> dict[str, np.ndarray]:
    """Arrays [D] by the name of a measure: words, word_length, hashes, ellipses, bullets,
    ellipsis_ends, alphabetic, stop_words. `words` counts words that are not all punctuation;
    ratios to words count punctuation too."""
    kinds, counts = vocabulary.kinds[words.ids], words.counts
    real = kinds & SYMBOL == 0
    number = per_document(np.add, real.astype(np.int64), counts)
    length = per_document(np.add, vocabulary.lengths[words.ids] * real, counts)
    letters = per_document(np.add, (kinds & ALPHABETIC > 0).astype(np.int64), counts)
    stops = per_document(np.bitwise_or, vocabulary.stops[words.ids], counts)
    every = np.maximum(counts, 1)
    by_lines = np.array([_line_shares(text) for text in texts]).reshape(-1, 2)
    dots = np.array([text.count("...") + text.count("…") for text in texts])
    return {
        "words": number,
        "word_length": length / np.maximum(number, 1),
        "hashes": np.array([text.count("#") for text in texts]) / every,
        "ellipses": dots / every,
        "bullets": by_lines[:, 0],
        "ellipsis_ends": by_lines[:, 1],
        "alphabetic": letters / every,
        "stop_words": np.bitwise_count(stops).astype(np.int64),
    }


def _line_shares(text: str) -> tuple[float, float]:
    """Shares of lines that begin with a bullet, and that end with an ellipsis."""
    if "•" not in text and "-" not in text and "..." not in text and "…" not in text:
        return 0.0, 0.0
    lines = text.splitlines() or [""]
    bullets = sum(line.lstrip().startswith(("•", "-")) for line in lines)
    ends = sum(line.rstrip().endswith(("...", "…")) for line in lines)
    return bullets / len(lines), ends / len(lines)


def repetition(
    texts: Sequence[str], words: Words, vocabulary: Vocabulary, section: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Arrays [D] by the name of a measure. A share of n-grams that cannot exceed its threshold in
    `section` is 0."""
    found = {
        f"duplicate_{what}{of}": np.zeros(len(texts))
        for what in ("paragraph", "line")
        for of in ("s", "_characters")
    }
    for place, text in enumerate(texts):
        if "\n\n" in text:
            paragraphs, lines = PARAGRAPHS.split(text.strip()), LINES.split(text)
        else:
            paragraphs, lines = [text], text.split("\n")
        for name, parts in (("paragraph", paragraphs), ("line", lines)):
            if len(set(parts)) < len(parts):
                again, characters = _repeated(parts)
                found[f"duplicate_{name}s"][place] = again / len(parts)
                found[f"duplicate_{name}_characters"][place] = characters / max(1, len(text))
    size = np.maximum(1, [len(text) for text in texts])
    hashes = vocabulary.hashes[words.ids]
    ends = np.concatenate(([0], np.cumsum(vocabulary.lengths[words.ids])))
    most = _counts(words, hashes, TOP[0])[0]
    for n in TOP:
        name = f"top_{n}_gram"
        found[name] = np.zeros(len(texts))
        # A longer n-gram is no commoner than the one that it begins with.
        bound = most * (_longest(words, ends, n) + n - 1) / size
        for place in np.flatnonzero(bound > section[name]):
            found[name][place] = top_characters(words.tokens[place], n) / size[place]
    for n in DUPLICATE:
        found[f"duplicate_{n}_grams"] = np.zeros(len(texts))
    # Where a long n-gram is repeated, the shorter ones in it are. Counted ones do not overlap.
    least = min(section[f"duplicate_{n}_grams"] for n in DUPLICATE)
    bound = _counts(words, hashes, DUPLICATE[0])[1] * _longest(words, ends, DUPLICATE[-1]) / size
    near = np.flatnonzero(bound > least)
    bounds = _covered(words.of(near.tolist()), vocabulary, DUPLICATE[0]) / size[near]
    for place, bound in zip(near.tolist(), bounds.tolist(), strict=True):
        for n in DUPLICATE:
            if bound > section[name := f"duplicate_{n}_grams"]:
                characters = repeated_characters(words.tokens[place], n)
                found[name][place] = characters / size[place]
    return found


def _repeated(parts: Sequence[str]) -> tuple[int, int]:
    """(number, characters) of the parts that occurred before."""
    seen, number, characters = set(), 0, 0
    for part in parts:
        if part in seen:
            number, characters = number + 1, characters + len(part)
        seen.add(part)
    return number, characters


def top_characters(tokens: Sequence[str], n: int) -> int:
    """Characters, spaces between words included, in the commonest n-gram; of equally common ones,
    in the first."""
    grams = Counter(zip(*(tokens[place:] for place in range(n)), strict=False))
    if not grams:
        return 0
    gram, times = grams.most_common(1)[0]
    return times * (sum(map(len, gram)) + n - 1)


def repeated_characters(tokens: Sequence[str], n: int) -> int:
    """Characters in n-grams that occurred before. Reads on behind a repeated n-gram, so that no
    character counts twice."""
    seen, characters, place = set(), 0, 0
    grams = list(zip(*(tokens[k:] for k in range(n)), strict=False))
    while place < len(grams):
        gram = grams[place]
        if gram in seen:
            characters += sum(map(len, gram))
            place += n
        else:
            seen.add(gram)
            place += 1
    return characters


def _counts(words: Words, hashes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(how often the commonest n-gram occurs [D], how many n-grams occurred before [D]). Hashes of
    48 bits may only make them larger."""
    most, again = np.zeros((2, len(words.counts)), np.int64)
    grams, begins = ngram_hashes(hashes, words.counts, n)
    if not len(grams):
        return most, again
    # The document is the upper part of the key, so sorted n-grams of a document stay together.
    owner = words.documents[begins].astype(np.uint64) << np.uint64(48)
    keys = np.sort(owner | (grams >> np.uint64(16)))
    firsts = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1])))
    times = np.diff(firsts, append=len(keys))
    documents = (keys[firsts] >> np.uint64(48)).astype(np.int64)
    distinct = np.bincount(documents, minlength=len(words.counts))
    most = per_document(np.maximum, times, distinct)
    return most, np.maximum(0, words.counts - n + 1) - distinct


def _longest(words: Words, ends: np.ndarray, n: int) -> np.ndarray:
    """At least the characters in the longest n words of each document [D]. `ends` has the sums of
    the lengths of all words before a word [W + 1]."""
    spans = ends[np.minimum(np.arange(n, len(ends) + n - 1), len(ends) - 1)] - ends[:-1]
    return per_document(np.maximum, spans, words.counts)


def _covered(words: Words, vocabulary: Vocabulary, n: int) -> np.ndarray:
    """Characters of all words in an n-gram that occurred before [D]: at least
    `repeated_characters` of n-grams of n or more words."""
    grams, begins = ngram_hashes(vocabulary.hashes[words.ids], words.counts, n)
    if not len(grams):
        return np.zeros(len(words.counts))
    owner = words.documents[begins].astype(np.uint64) << np.uint64(48)
    keys = owner | (grams >> np.uint64(16))
    order = np.argsort(keys)
    ordered = keys[order]
    firsts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    again = np.ones(len(keys), bool)
    again[np.minimum.reduceat(order, firsts)] = False
    steps = np.zeros(len(words.ids) + 1, np.int64)
    np.add.at(steps, begins[again], 1)
    np.add.at(steps, begins[again] + n, -1)
    inside = np.cumsum(steps[:-1]) > 0
    return per_document(np.add, vocabulary.lengths[words.ids] * inside, words.counts)
