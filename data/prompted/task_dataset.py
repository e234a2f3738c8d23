"""Prompts and answers as batches, a pure function of (hash, seed, step, row)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data import loader
from data.fields import Field
from data.prompted.prompt_encoder import PromptEncoder
from data.prompted.prompt_sources import Source
from data.prompted.scoring import Scorer
from data.tasks.checkers import Checker
from data.tokenizer import Tokenizer

TRIES = 100  # draws before a task counts as too long
SIZES = ("prompt_length", "answer_length")


def spec_of(data: Any) -> dict[str, Field]:
    """Fields of a row: prompt int32 [P], prompt_length int32 [], answer int32 [A], answer_length
    int32 []."""
    shapes = {"prompt": (data.prompt_length,), "answer": (data.answer_length,)}
    shapes |= {"prompt_length": (), "answer_length": ()}
    names = ("prompt", "prompt_length", "answer", "answer_length")
    return {name: Field(shapes[name], np.int32, (None,) * len(shapes[name])) for name in names}


@dataclass(frozen=True)
class TaskDataset:
    """Prompts with answers, and what scores responses. `for_run` sets the sizes of a run."""

    source: Source
    encoder: PromptEncoder
    scorer: Scorer
    hash: str
    config: Any = None

    @property
    def tokenizer(self) -> Tokenizer:
        return self.encoder.tokenizer

    @property
    def checker(self) -> Checker:
        return self.scorer.checker

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    def for_run(self, config: Any) -> "TaskDataset":
        """The dataset with the sizes of a run. ValueError for prompts or answers that do not fit
        data.prompt_length and data.answer_length, and if both together do not fit the context."""
        data, dataset = config.data, replace(self, config=config)
        if (room := data.prompt_length + data.answer_length) > config.model.context_length:
            raise ValueError(
                f"data.prompt_length={data.prompt_length} and data.answer_length="
                f"{data.answer_length} need {room} tokens, more than model.context_length="
                f"{config.model.context_length}; use smaller ones or a longer context"
            )
        for split in ("train", "validation"):
            dataset._require_room(split)
        return dataset

    def _require_room(self, split: str) -> None:
        found = [(prompt, *self._lengths(prompt, answer))
                 for prompt, answer in self.source.checked(split)]  # fmt: skip
        for number, key in enumerate(SIZES, start=1):
            most, longest = self.config.data[key], max(found, key=lambda one: one[number])
            if longest[number] > most:
                count = sum(one[number] > most for one in found)
                raise ValueError(
                    f"{count} of {len(found)} examples ({split}) are longer than data.{key}={most}:"
                    f" that of the prompt {longest[0][:40]!r} needs {longest[number]} tokens, its "
                    f"template and its end included; use data.{key}={longest[number]} or more"
                )

    def _lengths(self, prompt: str, answer: str) -> tuple[int, int]:
        ids, answered = self.encoder.encode(prompt, answer)
        return len(ids), len(answered)

    def spec(self) -> dict[str, Field]:
        return spec_of(self.config.data)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return {name: x[0] for name, x in self.batches(split, seed, step, 1, rows).items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        size = self.config.train.batch_size
        numbers = loader.rows_of_steps(step, count, size, rows)
        made = self._rows([self._drawn(split, seed, int(number)) for number in numbers])
        return {name: x.reshape(count, -1, *x.shape[1:]) for name, x in made.items()}

    def _drawn(self, split: str, seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of an example; `for_run` has found that nearly all fit, so one that does not
        gives way to the next."""
        data = self.config.data
        for skipped in range(TRIES):
            drawn = self.source.draw(split, seed, number + (skipped << 40))
            ids, answered = self.encoder.encode(*drawn)
            if len(ids) <= data.prompt_length and len(answered) <= data.answer_length:
                return ids, answered
        raise ValueError(f"data.prompt_length={data.prompt_length} is too small for this task")

    @cached_property
    def _held_out(self) -> dict[str, list]:
        return {}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """Evaluation batches: different prompts of the split, with one more field: counts float32
        [B], 0 in the rows that fill up the last batch."""
        size, data = self.config.eval.batch_size, self.config.data
        if split not in self._held_out:
            encoded = [self.encoder.encode(*one)
                       for one in self.source.fixed(split, self.config.eval.sequences)]  # fmt: skip
            self._held_out[split] = [
                (ids, answered)
                for ids, answered in encoded
                if len(ids) <= data.prompt_length and len(answered) <= data.answer_length
            ]
        listed = self._held_out[split]
        for first in range(0, len(listed), size):
            part = listed[first : first + size]
            filled = part + [part[0]] * (size - len(part))
            yield self._rows(filled) | {"counts": (np.arange(size) < len(part)).astype(np.float32)}

    def _rows(self, encoded: list[tuple[np.ndarray, np.ndarray]]) -> loader.Batch:
        """Prompts are padded on the left, answers on the right, both with the end of a document."""
        fields = spec_of(self.config.data)
        rows = {
            name: np.full((len(encoded), *field.shape), self.tokenizer.eod, np.int32)
            for name, field in fields.items()
        }
        for row, (ids, answered) in enumerate(encoded):
            rows["prompt"][row, rows["prompt"].shape[1] - len(ids) :] = ids
            rows["answer"][row, : len(answered)] = answered
            rows["prompt_length"][row], rows["answer_length"][row] = len(ids), len(answered)
        return rows

    def epochs(self, steps: float) -> float:
        return self.source.epochs(steps * self.config.train.batch_size)

    def save(self, workdir: Path) -> None:
        """Saves what sampling from the run needs: the tokenizer and the template."""
        self.tokenizer.save(workdir / "tokenizer")
        if self.encoder.chat:
            self.encoder.chat.save(workdir)
