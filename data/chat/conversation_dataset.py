"""Conversations as batches, a pure function of (hash, seed, step, row).

Rows hold one conversation each or are packed; each epoch is a permutation of all rows. The
evaluation set always has one conversation a row, so its loss does not depend on packing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import loader
from data.chat.chat_store import ChatStore
from data.chat.encoding import ChatEncoder
from data.chat.fitting import fitting, require_rows
from data.fields import Field
from data.paired.evaluated import evaluated
from data.paired.packing import Rows, offsets, one_each, packed, ranges
from data.shards import SPLITS
from data.tokenizer import Tokenizer

NAMES = ("tokens", "targets", "weights")


def spec_of(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, targets int32 [T] and weights float32 [T]; if rows are packed,
    segments and positions int32 [T]."""
    names = (*NAMES, "segments", "positions") if config.data.rows == "packed" else NAMES
    length, dtype = config.model.context_length, {"weights": np.float32}
    return {name: Field((length,), dtype.get(name, np.int32), ("seq",)) for name in names}


@dataclass(frozen=True)
class ConversationDataset:
    """Conversations as tokens. `for_run` sets the sizes of a run."""

    store: ChatStore
    encoder: ChatEncoder
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

    def for_run(self, config: Any) -> "ConversationDataset":
        """The dataset with the sizes of a run. ValueError for conversations that are too long, and
        if there are too few."""
        dataset = replace(self, config=config)
        numbers = {split: numbers for split, (numbers, _) in dataset.kept.items()}
        rows, batch = len(dataset.rows), config.train.batch_size
        require_rows(self.store, numbers, rows, batch, config.data.examples)
        return dataset

    @cached_property
    def kept(self) -> dict[str, tuple[np.ndarray, str]]:
        """(the conversations in use, a note about the others) of each split."""
        length, data = self.config.model.context_length, self.config.data
        how = length + 1, data, length, "conversations"  # the last token is only a target
        return {split: fitting(self.store, split, *how) for split in SPLITS}

    @property
    def notes(self) -> list[str]:
        """What a user should know of the data before a run."""
        return [note for _, note in self.kept.values() if note]

    @cached_property
    def lengths(self) -> dict[str, np.ndarray]:
        """Tokens of each conversation of a split, cut to what fits a row."""
        most = self.config.model.context_length + 1
        return {
            split: np.minimum(self.store.splits[split].lengths_NK[:, 0], most) for split in SPLITS
        }

    @property
    def evaluated(self) -> str:
        """The hash of the conversations that evaluations are drawn from, with their cut lengths."""
        numbers, _ = self.kept["validation"]
        return evaluated(numbers, self.lengths["validation"][numbers])

    @cached_property
    def begins(self) -> dict[str, np.ndarray]:
        return {split: self.store.splits[split].begins_NK[:, 0] for split in SPLITS}

    @cached_property
    def rows(self) -> Rows:
        """The rows of training."""
        numbers = self.kept["train"][0]
        if self.config.data.rows == "padded":
            return one_each(numbers)
        room = self.lengths["train"][numbers, None] - 1
        return packed(numbers, room, (self.config.model.context_length,))

    def spec(self) -> dict[str, Field]:
        return spec_of(self.config)

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
        """Evaluation batches: conversations spread evenly over the split, one a row; the last batch
        is filled up with empty rows. Where tokens have a number of bytes, they have one more field:
        bytes float32 [B], of the targets that count."""
        numbers, size = self.kept[split][0], self.config.eval.batch_size
        wanted = min(self.config.eval.sequences, len(numbers))
        numbers = numbers[loader.spread(wanted, len(numbers))]
        for first in range(0, wanted, size):
            part = numbers[first : first + size]
            row_p = np.arange(len(part))
            batch = self._filled(split, part, row_p, np.zeros_like(row_p), size)
            yield loader.with_bytes(batch, self.tokenizer.token_bytes)

    def _filled(
        self, split: str, numbers_p: np.ndarray, row_p: np.ndarray, place_p: np.ndarray, n_rows: int
    ) -> loader.Batch:
        """Rows with these conversations: each is `place` in its row. What none fills holds the end
        token, or 0 where it is a number."""
        examples = self.store.splits[split]
        room_p = self.lengths[split][numbers_p] - 1
        first_p = offsets(room_p, place_p)
        within_n, row_n = ranges(room_p), np.repeat(row_p, room_p)
        at_n = np.repeat(first_p, room_p) + within_n
        from_n = np.repeat(self.begins[split][numbers_p], room_p) + within_n
        made = {
            "tokens": examples.tokens[from_n],
            "targets": examples.tokens[from_n + 1],
            "weights": examples.targets[from_n + 1],
            "segments": np.repeat(place_p + 1, room_p),
            "positions": within_n,
        }
        batch = {}
        for name, field in self.spec().items():
            empty = self.tokenizer.eod if name in ("tokens", "targets") else 0
            batch[name] = np.full((n_rows, *field.shape), empty, field.dtype)
            batch[name][row_n, at_n] = made[name]
        return batch

    def epochs(self, steps: float) -> float:
        return steps * self.config.train.batch_size / len(self.rows)

    def save(self, workdir: Path) -> None:
        """Saves what sampling from the run needs: the tokenizer and the template."""
        self.tokenizer.save(workdir / "tokenizer")
        self.encoder.save(workdir)
