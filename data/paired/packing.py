"""Which pairs share a row: one pair a row, or as many as fit, packed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

OPEN = 32  # rows that are filled at the same time


@dataclass(frozen=True)
class Rows:
    """The pairs of R rows: row r holds pairs_P[begins[r] : begins[r + 1]], in this order."""

    pairs_P: np.ndarray
    begins: np.ndarray  # int64 [R + 1]

    def __len__(self) -> int:
        return len(self.begins) - 1

    def of(self, rows_n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(pair, number of its row in `rows_n`, its place in the row) of each pair of these rows,
        in order."""
        counts_n = self.begins[rows_n + 1] - self.begins[rows_n]
        row_p = np.repeat(np.arange(len(rows_n)), counts_n)
        place_p = ranges(counts_n)
        return self.pairs_P[self.begins[rows_n][row_p] + place_p], row_p, place_p


def ranges(lengths_p: np.ndarray) -> np.ndarray:
    """0, 1, …, lengths[0] - 1, 0, 1, …, lengths[1] - 1, …"""
    ends = np.cumsum(lengths_p)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths_p, lengths_p)


def offsets(lengths_p: np.ndarray, place_p: np.ndarray) -> np.ndarray:
    """Where each of these pieces begins in its row, if each row is filled from its beginning; the
    piece at place 0 is the first of its row."""
    before_p = np.cumsum(lengths_p) - lengths_p
    firsts_p = np.flatnonzero(place_p == 0)
    return before_p - np.repeat(before_p[firsts_p], np.diff([*firsts_p, len(lengths_p)]))


def one_each(pairs_P: np.ndarray) -> Rows:
    """One pair in each row."""
    return Rows(pairs_P, np.arange(len(pairs_P) + 1))


def packed(pairs_P: np.ndarray, room_PX: np.ndarray, capacity: Sequence[int]) -> Rows:
    """Rows that each hold as many pairs as fit: a pair goes to the first of OPEN open rows that has
    room for it; if none has, a new row is opened and the fullest one is closed (first fit, Johnson
    1974, with a bounded number of open bins).

    `room_PX` holds the tokens that each pair needs of each of X sides, `capacity` those of a row.
    """
    rows: list[list[int]] = []
    numbers, left = [], np.empty((0, len(capacity)), np.int64)  # of the open rows
    for pair, room in zip(pairs_P.tolist(), room_PX, strict=True):
        fits = np.flatnonzero((left >= room).all(1))
        if not len(fits):
            if len(numbers) == OPEN:
                fullest = int(left.min(1).argmin())
                del numbers[fullest]
                left = np.delete(left, fullest, axis=0)
            numbers.append(len(rows))
            rows.append([])
            left = np.vstack([left, np.asarray(capacity)])
            fits = [len(numbers) - 1]
        rows[numbers[fits[0]]].append(pair)
        left[fits[0]] -= room
    sizes = np.array([len(row) for row in rows], np.int64)
    flat = np.array([pair for row in rows for pair in row], np.int64)
    return Rows(flat, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
