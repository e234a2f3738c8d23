"""Preferences as batches, a pure function of (hash, seed, step, row): one in each row, padded.

A row has the prompt twice, once with each answer. Weights stand where the next token is in the
answer, so they belong to targets that are the tokens shifted left by one:

    chosen           p p a b .      rejected           p p c .
    chosen_weights   0 1 1 1 0      rejected_weights   0 1 1 0
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import loader
from data.chat.chat_store import ChatStore
from data.chat.fitting import fitting, require_rows
from data.fields import Field
from data.paired.evaluated import evaluated
from data.prompted.prompt_encoder import PromptEncoder
from data.shards import SPLITS
from data.tokenizer import Tokenizer

SIDES = ("chosen", "rejected")
FIELDS = (*SIDES, *(f"{side}_weights" for side in SIDES), "margin")


def spec_of(config: Any) -> dict[str, Field]:
    """Fields of a row: chosen, rejected int32 [T], chosen_weights, rejected_weights float32 [T] and
    margin float32 []."""
    row = (config.model.context_length,), ("seq",)
    tokens = {side: Field(row[0], np.int32, row[1]) for side in SIDES}
    weights = {f"{side}_weights": Field(row[0], np.float32, row[1]) for side in SIDES}
    return tokens | weights | {"margin": Field((), np.float32, ())}


@dataclass(frozen=True)
class PreferenceDataset:
    """Preferences as tokens. `for_run` sets the sizes of a run."""

    store: ChatStore
    encoder: PromptEncoder
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

    def for_run(self, config: Any) -> "PreferenceDataset":
        """The dataset with the sizes of a run. ValueError for preferences that are too long, and if
        there are too few."""
        dataset = replace(self, config=config)
        numbers = {split: numbers for split, (numbers, _) in dataset.kept.items()}
        rows, batch = len(numbers["train"]), config.train.batch_size
        require_rows(self.store, numbers, rows, batch, config.data.examples)
        return dataset

    @cached_property
    def kept(self) -> dict[str, tuple[np.ndarray, str]]:
        """(the preferences in use, a note about the others) of each split."""
        length, data = self.config.model.context_length, self.config.data
        return {
            split: fitting(self.store, split, length, data, length, "preferences")
            for split in SPLITS
        }

    @property
    def notes(self) -> list[str]:
        """What a user should know of the data before a run."""
        return [note for _, note in self.kept.values() if note]

    @property
    def evaluated(self) -> str:
        """The hash of the preferences that evaluations are drawn from."""
        return evaluated(self.kept["validation"][0])

    @cached_property
    def begins(self) -> dict[str, np.ndarray]:
        return {split: self.store.splits[split].begins_NK for split in SPLITS}

    def spec(self) -> dict[str, Field]:
        return spec_of(self.config)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return {name: x[0] for name, x in self.batches(split, seed, step, 1, rows).items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        size, numbers = self.config.train.batch_size, self.kept[split][0]
        rank = loader.rows_of_steps(step, count, size, rows)
        made = self._rows(split, numbers[loader.shuffled(rank, len(numbers), seed, 0)])
        return {name: x.reshape(count, -1, *x.shape[1:]) for name, x in made.items()}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """Evaluation batches: preferences spread evenly over the split. The rows that fill up the
        last batch have weights 0."""
        numbers, size = self.kept[split][0], self.config.eval.batch_size
        wanted = min(self.config.eval.sequences, len(numbers))
        numbers = numbers[loader.spread(wanted, len(numbers))]
        for first in range(0, wanted, size):
            part = numbers[first : first + size]
            batch = self._rows(split, np.resize(part, size))
            for side in SIDES:
                batch[f"{side}_weights"][len(part) :] = 0
            yield batch

    def _rows(self, split: str, numbers_R: np.ndarray) -> loader.Batch:
        """The fields of rows with these preferences, padded with the end of a document."""
        examples, begins_NK = self.store.splits[split], self.begins[split]
        batch = {
            name: np.full(
                (len(numbers_R), *field.shape),
                self.tokenizer.eod if name in SIDES else 0,
                field.dtype,
            )
            for name, field in self.spec().items()
        }
        for row, number in enumerate(numbers_R):
            for place, side in enumerate(SIDES):
                begin, n = begins_NK[number, place], int(examples.lengths_NK[number, place])
                batch[side][row, :n] = examples.tokens[begin : begin + n]
                weights = batch[f"{side}_weights"]
                weights[row, : n - 1] = examples.targets[begin + 1 : begin + n]
        batch["margin"][:] = examples.margins_N[numbers_R]
        return batch

    def epochs(self, steps: float) -> float:
        return steps * self.config.train.batch_size / len(self.kept["train"][0])

    def save(self, workdir: Path) -> None:
        """Saves what sampling from the run needs: the tokenizer and the template."""
        self.tokenizer.save(workdir / "tokenizer")
        if self.encoder.chat:
            self.encoder.chat.save(workdir)
