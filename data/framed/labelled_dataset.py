"""Labelled texts as batches, a pure function of (hash, seed, step, row): one text a row, padded.

Each epoch is a permutation of the training texts (`data/order.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import loader
from data.fields import Field
from data.framed.labelled_store import UNLABELLED, LabelledStore
from data.framed.marks import FRAMES, Marks
from data.framed.saved_classes import Classes
from data.tokenizer import Tokenizer

TOO_LONG = ("refuse", "truncate")


def spec_of(length: int, each_word: bool) -> dict[str, Field]:
    """Fields of a row: tokens, segments int32 [T], and either label int32 [] or labels int32 [T],
    where UNLABELLED does not count."""
    row = Field((length,), np.int32, ("seq",))
    label = {"labels": row} if each_word else {"label": Field((), np.int32, ())}
    return {"tokens": row, "segments": row} | label


def frame_of(data: Any) -> Any:
    """The function that makes the Marks of a tokenizer; ValueError for an unknown data.frame or
    data.too_long."""
    for key, known in (("frame", FRAMES), ("too_long", TOO_LONG)):
        if data[key] not in known:
            raise ValueError(f"data.{key}={data[key]!r} is unknown; use one of {', '.join(known)}")
    return FRAMES[data.frame]


@dataclass(frozen=True)
class LabelledDataset:
    """Labelled texts. `for_run` sets the sizes of a run."""

    store: LabelledStore
    each_word: bool
    marks: Marks
    config: Any = None

    @property
    def hash(self) -> str:
        return self.store.hash

    @property
    def vocab_size(self) -> int:
        return self.marks.vocab_size

    @property
    def n_classes(self) -> int:
        return len(self.store.labels)

    @property
    def tokenizer(self) -> Tokenizer:
        return self.store.tokenizer

    def for_run(self, config: Any) -> "LabelledDataset":
        """The dataset with the sizes of a run. Raises ValueError for texts that are too long unless
        they are to be truncated, and for a split without texts."""
        dataset = replace(self, config=config)
        for split, texts in self.store.splits.items():
            if not len(texts.lengths_N):
                raise ValueError(
                    f"data.corpora={self.store.name!r} has no texts in the split {split!r}; use "
                    "more, another data.validation, or data.held_out=FILE"
                )
            if config.data.too_long == "refuse":
                dataset._require_room(split)
        return dataset

    def _require_room(self, split: str) -> None:
        length, lengths_N = self.config.model.context_length, self.store.splits[split].lengths_N
        too_long = np.flatnonzero(lengths_N > length - 2)
        if len(too_long):
            raise ValueError(
                f"{len(too_long):,} of {len(lengths_N):,} texts ({split}) do not fit: "
                f"model.context_length={length} has room for {length - 2} tokens between their "
                f"marks. The first, {self.store.where[split][too_long[0]]}, has "
                f"{lengths_N[too_long[0]]}, the longest {lengths_N.max()}; use "
                f"model.context_length={lengths_N.max() + 2}, or data.too_long=truncate"
            )

    def spec(self) -> dict[str, Field]:
        return spec_of(self.config.model.context_length, self.each_word)

    @cached_property
    def training(self) -> np.ndarray:
        """The numbers of the training texts in use: all, or the first data.limit by their hash."""
        digests_N, limit = self.store.splits["train"].digests_N, self.config.data.limit
        return np.argsort(digests_N, kind="stable")[: limit or None]

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return {name: x[0] for name, x in self.batches(split, seed, step, 1, rows).items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        size = self.config.train.batch_size
        rank = loader.rows_of_steps(step, count, size, rows)
        chosen = np.arange(len(self.store.splits[split].lengths_N))
        chosen = self.training if split == "train" else chosen
        made = self._rows(split, chosen[loader.shuffled(rank, len(chosen), seed, 0)])
        return {name: x.reshape(count, -1, *x.shape[1:]) for name, x in made.items()}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """Evaluation batches: texts spread evenly over the split. Rows that fill up the last batch
        have no label."""
        available, size = len(self.store.splits[split].lengths_N), self.config.eval.batch_size
        wanted = min(self.config.eval.sequences, available)
        numbers = loader.spread(wanted, available)
        for first in range(0, wanted, size):
            part = numbers[first : first + size]
            batch = self._rows(split, np.resize(part, size))
            batch["labels" if self.each_word else "label"][len(part) :] = UNLABELLED
            yield batch

    def _rows(self, split: str, numbers_R: np.ndarray) -> loader.Batch:
        """The fields of rows with these texts."""
        texts, length = self.store.splits[split], self.config.model.context_length
        tokens_RT, segments_RT, labels_RT = np.zeros((3, len(numbers_R), length), np.int32)
        tokens_RT[:], labels_RT[:] = self.marks.padding, UNLABELLED
        label_R = np.empty(len(numbers_R), np.int32)
        for row, number in enumerate(numbers_R):
            begin, whole = texts.begins_N[number], texts.lengths_N[number]
            text = slice(begin, begin + min(whole, length - 2))
            framed = self.marks.framed(texts.tokens_n[text])
            tokens_RT[row, : len(framed)], segments_RT[row, : len(framed)] = framed, 1
            labels_RT[row, 1 : len(framed) - 1] = texts.labels_n[text]
            label_R[row] = texts.labels_n[begin + whole - 1]
        label = {"labels": labels_RT} if self.each_word else {"label": label_R}
        return {"tokens": tokens_RT, "segments": segments_RT} | label

    def epochs(self, steps: float) -> float:
        return steps * self.config.train.batch_size / len(self.training)

    def save(self, workdir: Path) -> None:
        """Saves what `isoflop classify` needs: the tokenizer, the names of the classes, and how
        texts are framed."""
        self.tokenizer.save(workdir / "tokenizer")
        Classes(self.store.labels, self.each_word, self.config.data.frame).save(workdir)
