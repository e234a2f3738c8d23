"""Exact nearest neighbours: the keys with the highest inner product, or the least distance.

Every key is compared with every query, block by block, by numpy or by faiss. Both give the same
neighbours, up to rounding.
"""

import numpy as np

BACKENDS = ("numpy", "faiss")
BLOCK = 1 << 24  # scores that exist at one time


def require_backend(name: str) -> None:
    """ValueError, in one line, for an unknown backend or one that is not installed."""
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown; use one of {', '.join(BACKENDS)}")
    if name == "faiss":
        try:
            import faiss  # noqa: F401
        except ImportError:
            raise ValueError(
                "backend=faiss needs the package faiss-cpu; run: pip install 'isoflop[faiss]', "
                "or use backend=numpy"
            ) from None


class Neighbours:
    """The best `k` keys of each query so far. Scores are inner products, or minus the squared
    distances; `ids` are -1 where there are fewer keys than `k`."""

    def __init__(self, queries: np.ndarray, k: int, distances: bool, backend: str = "numpy"):
        """`queries`: [Q, D]."""
        require_backend(backend)
        self.queries = np.ascontiguousarray(queries, np.float32)
        self.k, self.distances, self.backend = k, distances, backend
        self.scores = np.full((len(queries), k), -np.inf, np.float32)
        self.ids = np.full((len(queries), k), -1, np.int64)
        self.seen = 0

    def add(self, keys: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Compares the queries with more keys [N, D]. Their `ids` [N] go on from those before if
        none are given."""
        ids = self.seen + np.arange(len(keys)) if ids is None else ids
        self.seen += len(keys)
        keys = np.ascontiguousarray(keys, np.float32)
        if not len(keys):
            return
        if self.backend == "faiss":
            self._add_by_faiss(keys, ids)
        else:
            rows = max(1, min(len(self.queries), 1024))
            step = max(1, BLOCK // rows)
            for begin in range(0, len(keys), step):
                block = keys[begin : begin + step]
                for row in range(0, len(self.queries), rows):
                    self._add_block(slice(row, row + rows), block, ids[begin : begin + step])

    def _add_block(self, rows: slice, keys: np.ndarray, ids: np.ndarray) -> None:
        queries = self.queries[rows]
        scores = queries @ keys.T
        if self.distances:
            scores *= 2
            scores -= (keys * keys).sum(1)
            scores -= (queries * queries).sum(1)[:, None]
        better = scores > self.scores[rows, -1:]
        counts = better.sum(1)
        if counts.max(initial=0) == 0:
            return
        most = min(int(counts.max()), scores.shape[1])
        if most > 4 * self.k:  # as in the first block: choose by partition
            most = min(self.k, scores.shape[1])
            places = np.argpartition(scores, scores.shape[1] - most, axis=1)[:, -most:]
            found = np.take_along_axis(scores, places, 1)
        else:  # few beat those found so far: gather them, padded to the most of a row
            row, column = np.nonzero(better)
            rank = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            places = np.zeros((len(scores), most), np.int64)
            found = np.full((len(scores), most), -np.inf, np.float32)
            places[row, rank], found[row, rank] = column, scores[row, column]
        self._merge(rows, found, ids[places])

    def _add_by_faiss(self, keys: np.ndarray, ids: np.ndarray) -> None:
        import faiss

        k = min(self.k, len(keys))
        metric = faiss.METRIC_L2 if self.distances else faiss.METRIC_INNER_PRODUCT
        found, places = faiss.knn(self.queries, keys, k, metric=metric)
        self._merge(slice(None), -found if self.distances else found, ids[places])

    def _merge(self, rows: slice, scores: np.ndarray, ids: np.ndarray) -> None:
        """Keeps the best of those found so far and of others, best first."""
        scores = np.concatenate([self.scores[rows], scores], axis=1)
        ids = np.concatenate([self.ids[rows], np.where(scores[:, self.k :] > -np.inf, ids, -1)], 1)
        order = np.lexsort((ids, -scores))[:, : self.k]
        self.scores[rows] = np.take_along_axis(scores, order, 1)
        self.ids[rows] = np.take_along_axis(ids, order, 1)
