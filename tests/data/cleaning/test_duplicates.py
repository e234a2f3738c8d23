"""Tests of deduplication against comparing all pairs, in any division into units and ranges."""

import functools
import itertools

import numpy as np
import pytest

from data.cleaning.duplicates import clusters, signatures
from data.cleaning.text.contamination import folded
from data.cleaning.text.words import Vocabulary

SECTION = {"ngram": 5, "bands": 14, "rows": 8}


def documents(seed: int = 0) -> list[str]:
    """60 documents: some equal, some with a few words changed, some their own."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(500)]
    base = [rng.choice(words, 150).tolist() for _ in range(20)]
    found = []
    for _ in range(60):
        text = list(base[rng.integers(20)])
        for _ in range(rng.choice([0, 0, 2, 40])):
            text[rng.integers(150)] = str(rng.choice(words))
        found.append(" ".join(text))
    return found


def bands(texts: list[str]) -> np.ndarray:
    vocabulary = Vocabulary()
    hashes, counts, _ = folded(vocabulary.split(texts), vocabulary)
    return signatures.bands_of(hashes, counts, SECTION)


def roots(texts: list[str], borders: list[int], parts: int, folder, columns=range(15)) -> list[int]:
    """The kept document of each one's group, found by the files of units that end at `borders`."""
    files, firsts = [], []
    for number, (start, stop) in enumerate(itertools.pairwise([0, *borders, len(texts)])):
        here = texts[start:stop]
        files.append(folder / f"{number}-{parts}.sig")
        files[-1].write_bytes(signatures.packed(signatures.hashes_of(here), bands(here)))
        firsts.append(start)
    parents = np.arange(len(texts))
    tasks = [(column, part) for column in columns for part in range(parts)]
    for column, part in np.random.default_rng(len(borders)).permutation(tasks).tolist():
        clusters.join(parents, clusters.edges(files, firsts, 15, column, part, parts), 7)
    clusters.flatten(parents, 13)
    return parents.tolist()


@functools.cache
def expected(seed: int = 0) -> list[int]:
    """What comparing all pairs of `documents` finds."""
    return by_pairs(documents(seed))


def by_pairs(texts: list[str]) -> list[int]:
    """The same by comparing each document with each."""
    hashed = bands(texts)
    found = list(range(len(texts)))
    for a, b in itertools.combinations(range(len(texts)), 2):
        if texts[a] == texts[b] or (hashed[a] == hashed[b]).any():
            low, high = sorted((found[a], found[b]))
            found = [low if root == high else root for root in found]
    return found


@pytest.mark.parametrize(("borders", "parts"), [([], 1), ([17, 30], 3), (list(range(1, 60, 6)), 5)])
def test_groups_are_those_of_all_pairs(borders, parts, tmp_path):
    texts = documents()
    assert roots(texts, borders, parts, tmp_path) == expected()
    kept = set(expected())
    assert 20 <= len(kept) < 60 and all(expected()[root] == root for root in kept)
    assert (
        roots(texts, borders, parts, tmp_path, columns=[0]) != expected()
    )  # exact duplicates alone


def test_the_first_of_a_chain_is_kept():
    parents = np.arange(6)
    clusters.join(parents, np.array([[5, 4], [3, 2], [4, 3], [2, 1]], np.uint64))
    clusters.flatten(parents)
    assert parents.tolist() == [0, 1, 1, 1, 1, 1]
    histogram, largest = clusters.sizes(parents)
    assert histogram == {"5–8": 1} and largest == [(1, 5)]


@pytest.mark.parametrize("seed", range(3))
def test_union_of_random_pairs(seed):
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, 1000, (600, 2))
    parents = np.arange(1000)
    clusters.join(parents, pairs.astype(np.uint64), 50)
    clusters.flatten(parents)
    graph = coo_array((np.ones(600), pairs.T), (1000, 1000))
    labels = connected_components(graph, directed=False)[1]
    first = np.array([np.flatnonzero(labels == label)[0] for label in labels])
    assert parents.tolist() == first.tolist()


def test_bands_follow_the_similarity():
    """Pairs of Jaccard similarity s share a band with probability 1 - (1 - s^8)^14, within four
    standard errors."""
    rng = np.random.default_rng(0)
    vocabulary = Vocabulary()
    for share in (0.6, 0.75, 0.9):
        n, pairs = 100, 150
        size = round(n * share * 2 / (1 + share))  # n-grams in common
        texts = []
        for _ in range(pairs):
            ids = rng.integers(0, 10**9, 2 * n - size)
            texts += [" ".join(map(str, ids[:n])), " ".join(map(str, ids[n - size :]))]
        hashes, counts, _ = folded(vocabulary.split(texts), vocabulary)
        hashed = signatures.bands_of(hashes, counts, SECTION | {"ngram": 1})
        found = (hashed[::2] == hashed[1::2]).any(axis=1).mean()
        jaccard = size / (2 * n - size)
        expected = 1 - (1 - jaccard**8) ** 14
        assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / pairs) + 0.01


def test_short_documents_have_bands():
    texts = ["one two", "One, two!", "", "one two three four five six", "two one"]
    hashed = bands(texts)
    assert (hashed[0] == hashed[1]).all() and (hashed[0] != hashed[4]).all()
    assert (hashed[2] != hashed[0]).all()


def test_ranges_bound_the_memory():
    assert clusters.ranges(0, 10) == 1
    assert clusters.ranges(1000, 64 * 1000) == 1 and clusters.ranges(1001, 64 * 1000) == 2
