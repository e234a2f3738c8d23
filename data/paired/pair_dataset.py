"""Pairs as batches, a pure function of (hash, seed, step, row).

A `Layout` says how a pair lies in the rows of its kind. Rows hold one pair each or are packed; each
epoch is a permutation of all rows (`data/order.py`). The evaluation set always has one pair a row,
so its loss does not depend on packing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import loader
from data.fields import Field
from data.paired.evaluated import evaluated
from data.paired.packing import Rows, one_each, packed
from data.paired.pair_store import Pairs, PairStore
from data.tokenizer import Tokenizer

ROWS = ("padded", "packed")
TOO_LONG = ("refuse", "drop", "truncate")


@dataclass(frozen=True)
class Placed:
    """The p pairs of a batch: where each side lies in the tokens of the split, and in which row."""

    begins_p2: np.ndarray
    lengths_p2: np.ndarray  # of source and target, without the end, cut to what fits
    row_p: np.ndarray
    place_p: np.ndarray  # its number in its row, from 0


@dataclass(frozen=True)
class Layout:
    """How a kind lays out pairs. `capacity` holds the tokens of a row by side."""

    capacity: Callable[[Any], dict[str, int]]  # from a config: key → its value
    room: Callable[[np.ndarray], np.ndarray]  # lengths [P, 2] → tokens needed by side [P, X]
    cut: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]  # lengths [P, 2] → those that fit
    fields: Callable[[Any], dict[str, Field]]  # from a config
    fill: Callable[[dict[str, np.ndarray], Pairs, Placed], None]  # writes the batch, in place


@dataclass(frozen=True)
class PairDataset:
    """A pair store. `for_run` sets the sizes of a run."""

    store: PairStore
    layout: Layout
    config: Any = None

    @property
    def hash(self) -> str:
        return self.store.hash

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def tokenizer(self) -> Tokenizer:
        return self.store.tokenizer

    def for_run(self, config: Any) -> "PairDataset":
        """The dataset with the sizes of a run. Raises ValueError for pairs that are too long, and
        if there are too few."""
        dataset = replace(self, config=config)
        training, batch = len(dataset.rows), config.train.batch_size
        if training < batch:
            raise ValueError(
                f"data.corpora={self.store.name!r} fills {training} rows for training, but a batch "
                f"needs train.batch_size={batch}; use more pairs or a smaller batch"
            )
        if not len(dataset.kept["validation"][0]):
            raise ValueError(
                f"data.corpora={self.store.name!r} has no pairs for validation; use more, or a "
                "larger data.validation"
            )
        return dataset

    @cached_property
    def kept(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """(numbers, lengths [P, 2]) of the pairs of each split that are used, with cut lengths."""
        too_long = self.config.data.too_long
        capacity = self.layout.capacity(self.config)
        most, kept = tuple(capacity.values()), {}
        for name, pairs in self.store.pairs.items():
            fits_P = (self.layout.room(pairs.lengths_P2) <= most).all(1)
            if too_long == "refuse" and not fits_P.all():
                raise ValueError(self._refusal(pairs, fits_P, name, capacity))
            lengths_P2 = pairs.lengths_P2
            if too_long == "truncate":
                lengths_P2 = np.where(
                    fits_P[:, None], lengths_P2, self.layout.cut(lengths_P2, most)
                )
                fits_P = np.ones_like(fits_P)
            kept[name] = np.flatnonzero(fits_P), lengths_P2
        return kept

    @property
    def evaluated(self) -> str:
        """The hash of the pairs that evaluations are drawn from, with their cut lengths."""
        numbers, lengths_P2 = self.kept["validation"]
        return evaluated(numbers, lengths_P2[numbers])

    def _refusal(
        self, pairs: Pairs, fits_P: np.ndarray, split: str, capacity: dict[str, int]
    ) -> str:
        """The message about pairs that are too long: how many, the first, and what would do."""
        first = int(np.flatnonzero(~fits_P)[0])
        begin, length = pairs.begins_P2[first, 0], pairs.lengths_P2[first, 0]
        text = self.tokenizer.decode(pairs.take(np.arange(begin, begin + length)))
        needed = self.layout.room(pairs.lengths_P2).max(0)
        larger = [
            f"model.{key}={need}"
            for (key, most), need in zip(capacity.items(), needed, strict=True)
            if need > most
        ]
        keys = " and ".join(
            f"model.{key}={most} (they need {need})" if need > most else f"model.{key}={most}"
            for (key, most), need in zip(capacity.items(), needed, strict=True)
        )
        return (
            f"{(~fits_P).sum():,} of {len(fits_P):,} pairs of data.corpora={self.store.name!r} "
            f"({split}) are longer than {keys}; the first begins {' '.join(text.split())[:40]!r}. "
            f"Use {' and '.join(larger)}, or data.too_long=truncate or drop"
        )

    @cached_property
    def rows(self) -> Rows:
        """The rows of training."""
        pairs, lengths_P2 = self.kept["train"]
        if self.config.data.rows == "padded":
            return one_each(pairs)
        capacity = tuple(self.layout.capacity(self.config).values())
        return packed(pairs, self.layout.room(lengths_P2[pairs]), capacity)

    def spec(self) -> dict[str, Field]:
        return self.layout.fields(self.config)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return {name: x[0] for name, x in self.batches(split, seed, step, 1, rows).items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        size = self.config.train.batch_size
        rank = loader.rows_of_steps(step, count, size, rows)
        arranged = self.rows if split == "train" else one_each(self.kept[split][0])
        chosen = loader.shuffled(rank, len(arranged), seed, 0)
        filled = self._filled(split, *arranged.of(chosen), len(rank))
        return {name: x.reshape(count, -1, *x.shape[1:]) for name, x in filled.items()}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """Evaluation batches: pairs spread evenly over the split, one a row; the last batch is
        filled up with empty rows. Where tokens have a number of bytes, they have one more field:
        bytes float32 [B], of the target."""
        numbers, size = self.kept[split][0], self.config.eval.batch_size
        wanted = min(self.config.eval.sequences, len(numbers))
        numbers = numbers[loader.spread(wanted, len(numbers))]
        for first in range(0, wanted, size):
            part = numbers[first : first + size]
            row_p = np.arange(len(part))
            batch = self._filled(split, part, row_p, np.zeros_like(row_p), size)
            yield loader.with_bytes(batch, self.tokenizer.token_bytes)

    def _filled(
        self, split: str, pairs_p: np.ndarray, row_p: np.ndarray, place_p: np.ndarray, n_rows: int
    ) -> loader.Batch:
        """Rows with these pairs. What no pair fills holds the end token, or 0 where it is a
        number."""
        batch = {
            name: np.full(
                (n_rows, *field.shape),
                self.tokenizer.eod if name in ("source", "tokens", "targets") else 0,
                field.dtype,
            )
            for name, field in self.spec().items()
        }
        pairs, lengths_P2 = self.store.pairs[split], self.kept[split][1]
        placed = Placed(pairs.begins_P2[pairs_p], lengths_P2[pairs_p], row_p, place_p)
        self.layout.fill(batch, pairs, placed)
        return batch

    def epochs(self, steps: float) -> float:
        return steps * self.config.train.batch_size / len(self.rows)

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, so that translating with the run does not need its text."""
        self.tokenizer.save(workdir / "tokenizer")
