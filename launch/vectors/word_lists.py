"""Tests of word vectors from files in the usual formats: analogies and similarities."""

from collections.abc import Iterator
from importlib import resources
from typing import Any

import numpy as np
from scipy import stats

from data.files import path_of
from launch.files import text_lines
from launch.vectors.word_vectors import BLOCK, WordVectors

GENSIM = "gensim"
"""In place of a path: the file that the package gensim ships (the extra "vectors")."""


def lines_of(spec: str, flag: str, shipped: str) -> list[tuple[int, str]]:
    """The numbered lines of a file that are not empty; `shipped` is its name in gensim. ValueError
    or FileNotFoundError, naming the flag, for a file that cannot be read."""
    path: Any = path_of(spec, flag)
    if spec == GENSIM:
        try:
            path = resources.files("gensim.test") / "test_data" / shipped
        except ImportError:
            raise ValueError(
                f"{flag}=gensim needs the package gensim: pip install 'isoflop[vectors]'"
            ) from None
    return [(n, line.strip()) for n, line in enumerate(text_lines(path, flag), 1) if line.strip()]


def questions(spec: str) -> Iterator[tuple[str, list[str]]]:
    """(section, four words) of each question of a file like word2vec's questions-words.txt.
    ValueError names a line that is not a question."""
    section = "all"
    for number, line in lines_of(spec, "analogies", "questions-words.txt"):
        if line.startswith(":"):
            section = line[1:].strip()
            continue
        words = line.split()
        if len(words) != 4:
            raise ValueError(
                f"analogies={spec}, line {number} has {len(words)} words; a question is "
                "four words, and a section begins with ': name'"
            )
        yield section, words


def analogies(vectors: WordVectors, spec: str) -> dict[str, Any]:
    """Right answers, by section and overall. An answer is right if d is the nearest word to
    b - a + c, with a, b and c left out. Questions with a word that the model lacks are counted, not
    asked."""
    asked, unknown = [], 0
    sections: dict[str, dict[str, int]] = {}
    for section, words in questions(spec):
        tally = sections.setdefault(section, {"right": 0, "asked": 0, "out_of_vocabulary": 0})
        places = [vectors.find(word) for word in words]
        if None in places:
            tally["out_of_vocabulary"] += 1
            unknown += 1
        else:
            asked.append((section, places))
    if not asked and not unknown:
        raise ValueError(f"analogies={spec} holds no question")
    step = max(1, BLOCK // len(vectors.words))
    for first in range(0, len(asked), step):
        block = asked[first : first + step]
        a, b, c, d = np.array([places for _, places in block]).T
        cosine = vectors.cosines(vectors.unit[b] - vectors.unit[a] + vectors.unit[c])
        for excluded in (a, b, c):
            cosine[np.arange(len(block)), excluded] = -np.inf
        for (section, _), right in zip(block, cosine.argmax(1) == d, strict=True):
            sections[section]["asked"] += 1
            sections[section]["right"] += int(right)
    right = sum(tally["right"] for tally in sections.values())
    return {
        "right": right,
        "asked": len(asked),
        "out_of_vocabulary": unknown,
        "accuracy": right / len(asked) if asked else None,
        "sections": sections,
    }


def pairs(spec: str) -> Iterator[tuple[str, str, float]]:
    """(word, word, how similar people find them) of each line of a file like wordsim353.tsv, with
    tabs or commas; a first line of titles and lines after # are left out. ValueError names a line
    that is no pair."""
    lines = [
        (number, line)
        for number, line in lines_of(spec, "similarities", "wordsim353.tsv")
        if not line.startswith("#")
    ]
    for place, (number, line) in enumerate(lines):
        parts = [part.strip() for part in line.split("\t" if "\t" in line else ",")]
        try:
            one, other, score = parts[0], parts[1], float(parts[2])
        except (IndexError, ValueError):
            if place == 0:
                continue
            raise ValueError(
                f"similarities={spec}, line {number} is no pair: give two words and a number, "
                "separated by tabs"
            ) from None
        yield one, other, score


def similarities(vectors: WordVectors, spec: str) -> dict[str, Any]:
    """Spearman's ρ between the cosines of pairs of words and how similar people find them. Pairs
    with a word that the model lacks are counted and left out."""
    found = [(vectors.find(a), vectors.find(b), score) for a, b, score in pairs(spec)]
    if not found:
        raise ValueError(f"similarities={spec} holds no pair")
    known = [row for row in found if None not in row[:2]]
    about = {"spearman": None, "p_value": None, "pairs": len(known)}
    about["out_of_vocabulary"] = len(found) - len(known)
    if len(known) < 3:
        return about
    one, other, score = map(list, zip(*known, strict=True))
    product = (
        vectors.unit[one] * vectors.unit[other]
        if isinstance(vectors.unit, np.ndarray)
        else vectors.unit[one].multiply(vectors.unit[other])
    )
    cosine = np.asarray(product.sum(1)).ravel()
    rho, p = stats.spearmanr(cosine, score)
    return about | {"spearman": float(rho), "p_value": float(p)}
