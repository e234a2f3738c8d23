"""Best-fit-decreasing bin packing: which pieces of documents share a row.

Ding et al. 2024, "Fewer Truncations Improve Language Modeling", arXiv:2404.10830.
"""

import numpy as np

from data.paired.packing import Rows


def best_fit_decreasing(lengths_P: np.ndarray, capacity: int) -> Rows:
    """Rows of at most `capacity` tokens: pieces [P], the longest first, each go into the fullest
    row that has room for them, and into a new row if none has.

    Pieces of one length are placed together: the fullest row that fits takes as many of them as it
    can hold, since it stays the fullest. So the time is that of sorting plus at most capacity²
    steps. Equal lengths give equal rows. ValueError for a length that is not 1 to `capacity`.
    """
    if len(lengths_P) and not 1 <= lengths_P.min() <= lengths_P.max() <= capacity:
        raise ValueError(
            f"pieces of {lengths_P.min()} to {lengths_P.max()} tokens do not fit rows of {capacity}"
        )
    order_P = np.argsort(-lengths_P, kind="stable")
    sorted_P = lengths_P[order_P]
    runs = np.flatnonzero(np.diff(sorted_P, prepend=0, append=0))
    row_P = np.empty(len(lengths_P), np.int64)  # of the sorted pieces
    rows_by_room = [np.empty(0, np.int64)] * (capacity + 1)
    n_by_room = np.zeros(capacity + 1, np.int64)
    n_rows = 0
    for at, end in zip(runs[:-1].tolist(), runs[1:].tolist(), strict=True):
        length = int(sorted_P[at])
        while at < end:
            fits = np.flatnonzero(n_by_room[length:])
            room = length + int(fits[0]) if len(fits) else capacity
            each = room // length
            wanted = -(-(end - at) // each)
            if len(fits):
                rows = rows_by_room[room][:wanted]
                rows_by_room[room] = rows_by_room[room][wanted:]
                n_by_room[room] -= len(rows)
            else:
                rows = np.arange(n_rows, n_rows + wanted)
                n_rows += wanted
            placed = min(end - at, len(rows) * each)
            row_P[at : at + placed] = np.repeat(rows, each)[:placed]
            at += placed
            in_last = placed - (len(rows) - 1) * each
            for some, count in ((rows[:-1], each), (rows[-1:], in_last)):
                left = room - count * length
                rows_by_room[left] = np.concatenate([rows_by_room[left], some])
                n_by_room[left] += len(some)
    begins = np.concatenate([[0], np.cumsum(np.bincount(row_P, minlength=n_rows))])
    return Rows(order_P[np.argsort(row_P, kind="stable")], begins.astype(np.int64))
