"""What deduplication knows of a document: a hash of its text and, for MinHash, one hash a band.

MinHash (Broder 1997) with locality-sensitive hashing: documents that share all `rows` minima of any
of the `bands` are near duplicates. Two documents whose sets of n-grams have a Jaccard similarity s
are found with probability 1 - (1 - s^rows)^bands. The minima come from rensa.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.cleaning.text.words import MULTIPLIER, ngram_hashes

SEED = 1  # of rensa's permutations
EXACT = 2  # columns of 64 bits of the hash of a text


def hashes_of(texts: Sequence[str]) -> np.ndarray:
    """128-bit hashes of texts [D, 2]."""
    raw = b"".join(hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts)
    return np.frombuffer(raw, np.uint64).reshape(-1, EXACT)


def require_package() -> None:
    """ValueError without rensa."""
    try:
        import rensa  # noqa: F401
    except ImportError:
        raise ValueError(
            "minhash.on=True needs the package rensa; pip install 'isoflop[clean]', or set "
            "minhash.on=False"
        ) from None


def bands_of(folded: np.ndarray, counts: np.ndarray, section: Mapping[str, Any]) -> np.ndarray:
    """The hash of each band [D, bands] of documents, given the hashes of their folded words [W] and
    the number of words of each [D]. A document with fewer words than an n-gram is one n-gram."""
    import rensa

    n, bands, rows = section["ngram"], section["bands"], section["rows"]
    grams, begins = ngram_hashes(folded, counts, n)
    owner = np.repeat(np.arange(len(counts)), counts)
    of_gram = owner[begins]
    short = np.flatnonzero(counts < n)
    starts = np.cumsum(counts) - counts
    whole = [_one_gram(folded[starts[d] : starts[d] + counts[d]]) for d in short]
    grams = np.concatenate([grams, np.array(whole, np.uint64)])
    of_gram = np.concatenate([of_gram, short])
    order = np.argsort(of_gram, kind="stable")
    grams, per = grams[order], np.bincount(of_gram, minlength=len(counts))
    offsets = np.concatenate(([0], np.cumsum(per))).astype(np.uint64)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(grams), offsets, num_perm=bands * rows, seed=SEED
    )
    minima = np.array(matrix.to_rows(), np.uint64).reshape(len(counts), bands, rows)
    keys = np.zeros((len(counts), bands), np.uint64)
    for row in range(rows):
        keys = (keys ^ minima[:, :, row]) * MULTIPLIER
        keys ^= keys >> np.uint64(31)
    return keys


def _one_gram(hashes: np.ndarray) -> int:
    value = 0
    for one in hashes.tolist():
        value = (value * int(MULTIPLIER) + one) & (2**64 - 1)
    return value ^ value >> 29


def packed(exact: np.ndarray, bands: np.ndarray) -> bytes:
    """The signatures of a unit's D documents, as `Signatures` reads them: 8 bytes a document, and
    12 more for the hash of the text and for each band."""
    columns = [exact[:, 0], *bands.T]
    orders = [np.argsort(column, kind="stable") for column in columns]
    parts = [column[order] for column, order in zip(columns, orders, strict=True)]
    parts.append(exact[orders[0], 1])
    parts += [order.astype("<u4") for order in orders]
    return b"".join(part.astype(part.dtype.newbyteorder("<")).tobytes() for part in parts)


class Signatures:
    """The signatures of a unit, mapped into memory: only what is used is read.

    Column 0 is the hash of the text, column b the hash of band b. Each is sorted, so that a range
    of hashes is a slice: `hashes` [columns, D] has the values, `numbers` [columns, D] the
    documents, and `seconds` [D] the second half of the hash of the text, in the order of column 0.
    """

    def __init__(self, path: Path, columns: int):
        raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
        self.documents = len(raw) // (12 * columns + 8)
        ends = np.cumsum([8 * columns * self.documents, 8 * self.documents])
        self.hashes = raw[: ends[0]].view("<u8").reshape(columns, self.documents)
        self.seconds = raw[ends[0] : ends[1]].view("<u8")
        self.numbers = raw[ends[1] :].view("<u4").reshape(columns, self.documents)
