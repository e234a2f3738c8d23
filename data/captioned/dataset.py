"""Captioned images as batches, a pure function of (hash, seed, step, row): one image a row.

With the end token `.` a row has

    image     uint8 [H, W, C]          tokens    . a red circle . .
                                       targets   a red circle . . .
                                       weights   1 1   1      1 0 0

The caption begins after the end token, which also ends it. The image has no targets: a model puts
it before the tokens. Each epoch is a permutation of the training images (`data/order.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import loader
from data.captioned.store import CaptionedStore, Shape
from data.fields import Field
from data.paired.evaluated import evaluated
from data.tokenizer import Tokenizer

FIELDS = ("image", "tokens", "targets", "weights")
TOO_LONG = ("refuse", "truncate")


def spec_of(shape: Shape, length: int) -> dict[str, Field]:
    """Fields of a row: image uint8 [H, W, C], tokens, targets int32 [T], weights float32 [T]."""
    fields = {name: Field((length,), np.int32, ("seq",)) for name in ("tokens", "targets")}
    image = Field(shape, np.uint8, (None, None, None))
    return {"image": image} | fields | {"weights": Field((length,), np.float32, ("seq",))}


def require_choices(data: Any) -> None:
    """ValueError for an unknown data.too_long and a negative data.max_unreadable."""
    if data.too_long not in TOO_LONG:
        raise ValueError(
            f"data.too_long={data.too_long!r} is unknown; use one of {', '.join(TOO_LONG)}"
        )
    if data.max_unreadable < 0:
        raise ValueError(f"data.max_unreadable={data.max_unreadable} must be 0 or more")


@dataclass(frozen=True)
class CaptionedDataset:
    """A store of captioned images. `for_run` sets the sizes of a run."""

    store: CaptionedStore
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

    def for_run(self, config: Any) -> "CaptionedDataset":
        """The dataset with the sizes of a run. Raises ValueError for captions that are too long
        unless they are to be truncated, for a split without images, and for fewer images than a
        batch."""
        dataset = replace(self, config=config)
        for split, captions in self.store.captions.items():
            if not len(captions.lengths_N):
                raise ValueError(
                    f"data.corpora={self.store.name!r} has no files in the split {split!r}; use "
                    "more, another data.validation, or data.held_out=FOLDER"
                )
            if config.data.too_long == "refuse":
                dataset._require_room(split)
        training, batch = len(self.store.captions["train"].lengths_N), config.train.batch_size
        if training < batch:
            raise ValueError(
                f"data.corpora={self.store.name!r} has {training} files for training, but a batch "
                f"needs train.batch_size={batch}; use more, or a smaller batch"
            )
        return dataset

    def _require_room(self, split: str) -> None:
        length, lengths_N = self.length, self.store.captions[split].lengths_N
        too_long = np.flatnonzero(lengths_N > length - 1)
        if len(too_long):
            first, longest = too_long[0], lengths_N.max()
            raise ValueError(
                f"{len(too_long):,} of {len(lengths_N):,} captions ({split}) do not fit: "
                f"model.context_length={length} has room for {length - 1} tokens and the end. The "
                f"first, of {self.store.names(split)[first]}, has {lengths_N[first]}, the longest "
                f"{longest}; use model.context_length={longest + 1}, or data.too_long=truncate"
            )

    @property
    def length(self) -> int:
        return self.config.model.context_length

    @property
    def evaluated(self) -> str:
        """The hash of the images that evaluations are drawn from, with their cut captions."""
        lengths_N = self.store.captions["validation"].lengths_N
        return evaluated(np.arange(len(lengths_N)), np.minimum(lengths_N, self.length - 1))

    def spec(self) -> dict[str, Field]:
        return spec_of(self.store.shape, self.length)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return {name: x[0] for name, x in self.batches(split, seed, step, 1, rows).items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        size = self.config.train.batch_size
        rank = loader.rows_of_steps(step, count, size, rows)
        available = len(self.store.captions[split].lengths_N)
        made = self.rows(split, loader.shuffled(rank, available, seed, 0))
        return {name: x.reshape(count, -1, *x.shape[1:]) for name, x in made.items()}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """Evaluation batches: images spread evenly over the split. Rows that fill up the last batch
        have weight 0. Where tokens have a number of bytes, they have one more field: bytes float32
        [B], of the caption."""
        size, available = self.config.eval.batch_size, len(self.store.captions[split].lengths_N)
        wanted = min(self.config.eval.sequences, available)
        numbers = loader.spread(wanted, available)
        for first in range(0, wanted, size):
            part = numbers[first : first + size]
            batch = self.rows(split, np.resize(part, size))
            batch["weights"][len(part) :] = 0
            yield loader.with_bytes(batch, self.tokenizer.token_bytes)

    def rows(self, split: str, numbers_R: np.ndarray) -> loader.Batch:
        """The fields of rows with these images."""
        captions, eod = self.store.captions[split], self.tokenizer.eod
        shape = len(numbers_R), self.length
        tokens_RT, targets_RT = np.full((2, *shape), eod, np.int32)
        weights_RT = np.zeros(shape, np.float32)
        for row, number in enumerate(numbers_R):
            begin = captions.begins_N[number]
            count = min(captions.lengths_N[number], self.length - 1)
            caption = captions.tokens_n[begin : begin + count]
            tokens_RT[row, 1 : count + 1] = targets_RT[row, :count] = caption
            weights_RT[row, : count + 1] = 1
        image_RHWC = self.store.images(split, numbers_R)
        return dict(image=image_RHWC, tokens=tokens_RT, targets=targets_RT, weights=weights_RT)

    def epochs(self, steps: float) -> float:
        training = len(self.store.captions["train"].lengths_N)
        return steps * self.config.train.batch_size / training

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, so that captioning with the run does not need its data."""
        self.tokenizer.save(workdir / "tokenizer")
