"""Fills the gaps that best fit leaves, by cutting some long documents once more.

Best fit leaves gaps where no short document is left to fill them. A document longer than a row is
cut anyway, so some of its pieces that fill a row are taken out and laid into the gaps:

    A A A A A │ A A A A A │ B B B B . │ C C C . . │ D D D . .
    A A A A A │             B B B B A │ C C C A A │ D D D A A      a row less, two cuts more
"""

from typing import NamedTuple

import numpy as np

from data.paired.packing import Rows, ranges

MAX_PADDING = 0.001  # the share of padding above which documents are cut once more


class Pieces(NamedTuple):
    """Pieces [P] of the documents of a split; each is a document or a part of one."""

    begins_P: np.ndarray  # where their targets begin in the split
    lengths_P: np.ndarray  # how many they are
    first_P: np.ndarray  # whether a piece begins a document


def cut(lengths_N: np.ndarray, capacity: int) -> Pieces:
    """Documents of these lengths, one after the other, cut every `capacity` tokens."""
    counts_N = -(-lengths_N // capacity)
    place_P = ranges(counts_N)
    begins_P = np.repeat(np.cumsum(lengths_N) - lengths_N, counts_N) + place_P * capacity
    left_P = np.repeat(lengths_N, counts_N) - place_P * capacity
    return Pieces(begins_P, np.minimum(left_P, capacity), place_P == 0)


def fill_gaps(pieces: Pieces, rows: Rows, capacity: int) -> tuple[Pieces, Rows]:
    """The pieces of `cut` and the rows that hold them, with less padding: at most MAX_PADDING, or
    less than a row of it, if the documents that are cut have enough pieces that fill a row.

    As many of these pieces as needed, those of the longest documents, are taken out of their rows.
    Their tokens, in order, fill the largest gaps. For k pieces of J documents that fill G gaps, at
    most G + J - 1 - k more cuts are made. Documents that fit a row stay whole. Rows
    within the bound are returned as they are.
    """
    tokens = int(pieces.lengths_P.sum())
    within_bound = int(tokens / (capacity * (1 - MAX_PADDING)))
    excess = len(rows) - max(within_bound, -(-tokens // capacity))
    if excess <= 0:
        return pieces, rows
    taken_k = _whole_rows(pieces, capacity)[:excess]
    if not len(taken_k):
        return pieces, rows

    # Lay the taken pieces end to end. This line is cut where a gap is full, and where the next
    # piece does not continue the same document.
    begins_k, first_k = pieces.begins_P[taken_k], pieces.first_P[taken_k]
    continues_k = (np.diff(begins_k, prepend=begins_k[0]) == capacity) & ~first_k
    line = len(taken_k) * capacity
    room_R = capacity - np.add.reduceat(pieces.lengths_P[rows.pairs_P], rows.begins[:-1])
    gap_G = np.argsort(-room_R, kind="stable")
    ends_G = np.cumsum(room_R[gap_G])
    starts_k = np.arange(0, line, capacity)[~continues_k]
    at_p = np.union1d(ends_G[ends_G < line], starts_k)
    source_p, inside_p = np.divmod(at_p, capacity)
    new = Pieces(
        begins_k[source_p] + inside_p,
        np.diff(at_p, append=line),
        first_k[source_p] & (inside_p == 0),
    )
    new_row_p = gap_G[np.searchsorted(ends_G, at_p, side="right")]
    return _replaced(pieces, rows, taken_k, new, new_row_p)


def _whole_rows(pieces: Pieces, capacity: int) -> np.ndarray:
    """The pieces that fill a row and are not a whole document, those of the longest documents
    first."""
    last_P = np.append(pieces.first_P[1:], True)
    full = np.flatnonzero((pieces.lengths_P == capacity) & ~(pieces.first_P & last_P))
    document_P = np.cumsum(pieces.first_P) - 1
    pieces_of_N = np.bincount(document_P)
    return full[np.argsort(-pieces_of_N[document_P[full]], kind="stable")]


def _replaced(
    pieces: Pieces, rows: Rows, taken_k: np.ndarray, new: Pieces, new_row_p: np.ndarray
) -> tuple[Pieces, Rows]:
    """Without the taken pieces and their rows, which hold nothing else, and with the new pieces at
    the ends of their rows. The order of the other rows stays."""
    kept_P = np.ones(len(pieces.lengths_P), bool)
    kept_P[taken_k] = False
    both = Pieces(*(np.append(a[kept_P], b) for a, b in zip(pieces, new, strict=True)))
    number_P = np.cumsum(kept_P) - 1
    here = kept_P[rows.pairs_P]
    old_row_P = np.repeat(np.arange(len(rows)), np.diff(rows.begins))[here]
    n_old = len(old_row_P)
    pairs_P = np.append(number_P[rows.pairs_P[here]], n_old + np.arange(len(new_row_p)))
    row_P = np.append(old_row_P, new_row_p)
    counts_R = np.bincount(row_P, minlength=len(rows))
    begins = np.concatenate([[0], np.cumsum(counts_R[counts_R > 0])]).astype(np.int64)
    return both, Rows(pairs_P[np.argsort(row_P, kind="stable")], begins)
