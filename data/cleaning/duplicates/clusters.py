"""Groups of duplicates over all units, in bounded memory.

A task compares the hashes of one band that lie in one range; ranges are so narrow that a task fits
the memory it is given. It yields edges (a document, the first one with the same hash), which a
union-find over the numbers of documents joins. The first document of a group in input order is its
root and is kept, whatever order tasks end in.

Memory: 8 bytes a document for the roots, 1 byte for the mark of exact duplicates, and the edges of
one task at a time. Documents are numbered over all units in input order.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.cleaning.duplicates.signatures import Signatures

BYTES_PER_ENTRY = 64  # of a task: hash, second half, number, order, and copies while sorting


def ranges(documents: int, memory: int) -> int:
    """How many ranges of hashes a band is divided into, so that a task needs `memory` bytes."""
    return max(1, -(-documents * BYTES_PER_ENTRY // memory))


def within(hashes: np.ndarray, part: int, parts: int) -> slice:
    """Where sorted hashes lie in one of `parts` equal ranges."""
    low, high = (part * 2**64) // parts, ((part + 1) * 2**64) // parts
    start = np.searchsorted(hashes, np.uint64(low)) if part else 0
    stop = np.searchsorted(hashes, np.uint64(high)) if part + 1 < parts else len(hashes)
    return slice(int(start), int(stop))


def edges(
    files: Sequence[Path], firsts: Sequence[int], columns: int, column: int, part: int, parts: int
) -> np.ndarray:
    """Pairs [E, 2] of uint64 (document, first document with the same hash) of one column of the
    signatures, for one of the ranges of hashes.

    `files` are the units' signatures, `firsts` the numbers of their first documents.
    """
    hashes, numbers, seconds = [], [], []
    for file, first in zip(files, firsts, strict=True):
        unit = Signatures(file, columns)
        here = within(unit.hashes[column], part, parts)
        if here.start == here.stop:
            continue
        hashes.append(np.array(unit.hashes[column, here]))
        numbers.append(unit.numbers[column, here].astype(np.uint64) + np.uint64(first))
        if column == 0:
            seconds.append(np.array(unit.seconds[here]))
    if not hashes:
        return np.zeros((0, 2), np.uint64)
    hashed, number = np.concatenate(hashes), np.concatenate(numbers)
    second = np.concatenate(seconds) if seconds else np.zeros(len(hashed), np.uint64)
    order = np.lexsort((number, second, hashed))
    hashed, number, second = hashed[order], number[order], second[order]
    new = np.concatenate(([True], (hashed[1:] != hashed[:-1]) | (second[1:] != second[:-1])))
    root = number[np.flatnonzero(new)[np.cumsum(new) - 1]]
    return np.stack([number[~new], root[~new]], axis=1)


def find(parents: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The roots of some documents. Shortens the paths on the way."""
    found = parents[numbers]
    while True:
        above = parents[found]
        if (above == found).all():
            break
        found = above
    parents[numbers] = found
    return found


def join(parents: np.ndarray, pairs: np.ndarray, at_once: int = 1 << 20) -> None:
    """Joins the groups of each pair in place: the smaller root becomes the root of both."""
    for start in range(0, len(pairs), at_once):
        left, right = (pairs[start : start + at_once, side].astype(np.int64) for side in (0, 1))
        while len(left):
            a, b = find(parents, left), find(parents, right)
            apart = a != b
            left, right, a, b = left[apart], right[apart], a[apart], b[apart]
            # Of several pairs with the same larger root the smallest wins; the rest try again.
            np.minimum.at(parents, np.maximum(a, b), np.minimum(a, b))


def flatten(parents: np.ndarray, at_once: int = 1 << 20) -> None:
    """Lets every document point to its root, in place."""
    for start in range(0, len(parents), at_once):
        stop = min(len(parents), start + at_once)
        parents[start:stop] = find(parents, np.arange(start, stop))


def sizes(parents: np.ndarray) -> tuple[dict[str, int], list[tuple[int, int]]]:
    """(how many groups have 2, 3–4, 5–8, … documents; the roots and sizes of the 20 largest)."""
    counts = np.bincount(parents, minlength=len(parents)) if len(parents) else np.zeros(0, int)
    roots = np.flatnonzero(counts > 1)
    steps = np.ceil(np.log2(counts[roots])).astype(int)
    bins, numbers = np.unique(steps, return_counts=True)
    names = [f"{2 ** (step - 1) + 1}–{2**step}" if step > 1 else "2" for step in bins.tolist()]
    largest = roots[np.lexsort((roots, -counts[roots]))][:20]
    return (
        dict(zip(names, numbers.tolist(), strict=True)),
        [(int(root), int(counts[root])) for root in largest],
    )
