"""Whole documents in rows, as batches that are a pure function of (store, seed, step, row).

A document is the tokens of a split up to an end-of-document token, included. One that is longer
than a row is cut into pieces, of which all but the last fill a row; pieces are packed by best fit.
Some of these documents are cut once more where that leaves gaps (`data/packed/gap_filling.py`).
Every token is a target once per epoch. Its input is the token before it; that of the first token
of a document is the end-of-document token, as when a new document is sampled:

    tokens     . a b c . d e ▢        segments   1 1 1 1 2 2 2 0
    targets    a b c . d e . ▢        positions  0 1 2 3 0 1 2 0        weights  1 1 1 1 1 1 1 0

No token sees another segment. Padding ▢ holds the end-of-document token and has weight 0.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data import loader
from data.packed.best_fit import best_fit_decreasing
from data.packed.document_lengths import document_lengths
from data.packed.gap_filling import Pieces, cut, fill_gaps
from data.paired.packing import Rows, offsets, ranges
from data.shards import Split
from data.store import TokenStore


@dataclass(frozen=True)
class PackedSplit:
    """The packed rows of one split of one corpus."""

    split: Split
    eod: int  # the token that ends documents
    length: int  # tokens of a row
    document_lengths: np.ndarray  # with the end-of-document token, int64 [N]

    @cached_property
    def packed(self) -> tuple[Pieces, Rows]:
        """The pieces of all documents, and the rows that hold them."""
        pieces = cut(self.document_lengths, self.length)
        return fill_gaps(pieces, best_fit_decreasing(pieces.lengths_P, self.length), self.length)

    @property
    def rows(self) -> Rows:
        return self.packed[1]

    def read(self, rows_n: np.ndarray) -> loader.Batch:
        """The rows with these numbers [n]: tokens, targets, segments, positions int32 [n, T],
        weights float32."""
        pieces, rows = self.packed
        piece_p, row_p, place_p = rows.of(rows_n)
        begins_p, lengths_p, first_p = (array[piece_p] for array in pieces)
        begin_m = np.repeat(offsets(lengths_p, place_p), lengths_p)
        within_m, row_m = ranges(lengths_p), np.repeat(row_p, lengths_p)
        target_m = take(self.split, begins_p, lengths_p)
        input_m = np.roll(target_m, 1)
        starts_p = np.cumsum(lengths_p) - lengths_p
        before_p = np.maximum(begins_p - 1, 0)
        input_m[starts_p] = np.where(
            first_p, self.eod, take(self.split, before_p, np.ones_like(before_p))
        )
        made = {
            "tokens": input_m,
            "targets": target_m,
            "weights": 1,
            "segments": np.repeat(place_p + 1, lengths_p),
            "positions": within_m,
        }
        batch = {}
        for name, values in made.items():
            empty = self.eod if name in ("tokens", "targets") else 0
            dtype = np.float32 if name == "weights" else np.int32
            batch[name] = np.full((len(rows_n), self.length), empty, dtype)
            batch[name][row_m, begin_m + within_m] = values
        return batch

    def counts(self) -> dict[str, int | float]:
        """Rows, the share of padding, and how many documents are cut, and in how many places: in
        packed rows, and in windows of the same length."""
        ends_N = np.cumsum(self.document_lengths)
        begins_N = ends_N - self.document_lengths
        # A window begins with token k * length. Its first target is the next one, which no longer
        # sees the tokens before. That cuts a document if it has both and begins earlier.
        windows_N = np.maximum((ends_N - 2) // self.length - begins_N // self.length, 0)
        pieces, rows = self.packed
        tokens = int(ends_N[-1]) if len(ends_N) else 0
        return {
            "documents": len(ends_N),
            "rows": len(rows),
            "padding": 1 - tokens / max(1, len(rows) * self.length),
            "cut_documents": int((self.document_lengths > self.length).sum()),
            "cuts": len(pieces.lengths_P) - len(ends_N),
            "cut_documents_by_windows": int((windows_N > 0).sum()),
            "cuts_by_windows": int(windows_N.sum()),
        }


@dataclass(frozen=True)
class PackedStore:
    """A token store whose training rows are packed; a mixture draws its rows as of windows."""

    store: TokenStore
    length: int

    @cached_property
    def parts(self) -> list[PackedSplit]:
        """The training split of each component; raises what `document_lengths` raises."""
        tokenizer = self.store.tokenizer
        return [
            PackedSplit(
                part.splits["train"],
                tokenizer.eod,
                self.length,
                document_lengths(part, tokenizer),
            )
            for part in self.store.components
        ]

    def read_chunk(
        self, seed: int, first_step: int, steps: int, batch_size: int, rows: loader.Rows | None
    ) -> loader.Batch:
        """The batches of `steps` steps from `first_step` on: arrays [K, B, T]."""
        row = loader.rows_of_steps(first_step, steps, batch_size, rows)
        component, rank = loader.assign(row, self.store.weights)
        batch: loader.Batch = {}
        for number, part in enumerate(self.parts):
            here = component == number
            found = part.read(loader.shuffled(rank[here], len(part.rows), seed, number))
            for name, array in found.items():
                empty = np.empty((len(row), self.length), array.dtype)
                batch.setdefault(name, empty)[here] = array
        return {name: array.reshape(steps, -1, self.length) for name, array in batch.items()}

    def epochs(self, steps: float, batch_size: int) -> float:
        """Epochs of the training text in `steps` steps; the largest of all components."""
        total = sum(self.store.weights)
        return max(
            steps * batch_size * weight / total / len(part.rows)
            for part, weight in zip(self.parts, self.store.weights, strict=True)
        )

    def require_rows(self, batch_size: int) -> None:
        """Raises ValueError, with the numbers, if the training text is smaller than one batch."""
        rows = [len(part.rows) for part in self.parts]
        for part, count in zip(self.store.components, rows, strict=True):
            if not count:
                raise ValueError(f"corpus {part.name!r} has no training documents; use more text")
        if sum(rows) < batch_size:
            raise ValueError(
                f"the training text fills {sum(rows)} packed rows of model.context_length="
                f"{self.length}, but a batch needs train.batch_size={batch_size}; use more text or "
                "a smaller batch"
            )


def take(split: Split, begins_p: np.ndarray, lengths_p: np.ndarray) -> np.ndarray:
    """The tokens of pieces that begin at `begins_p` in the split, one after the other. A piece lies
    within one shard, as documents do."""
    shard_p = np.searchsorted(split.begins, begins_p, side="right") - 1
    out = np.empty(lengths_p.sum(), np.int32)
    for number in np.unique(shard_p):
        here_p = shard_p == number
        lengths = lengths_p[here_p]
        local_m = np.repeat(begins_p[here_p] - split.begins[number], lengths) + ranges(lengths)
        out[np.repeat(here_p, lengths_p)] = split.shards[number][local_m]
    return out


def own_documents(batch: loader.Batch, eod: int) -> loader.Batch:
    """Windows of text [B, T], where each token sees its own document only: `batch` with segments
    and positions. A document begins with the end-of-document token before it, as in packed rows."""
    starts_BT = batch["tokens"] == eod
    place_BT = np.broadcast_to(np.arange(starts_BT.shape[1]), starts_BT.shape)
    begin_BT = np.maximum.accumulate(np.where(starts_BT, place_BT, 0), axis=1)
    return batch | {
        "segments": (1 + np.cumsum(starts_BT, axis=1)).astype(np.int32),
        "positions": (place_BT - begin_BT).astype(np.int32),
    }
