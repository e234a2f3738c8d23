"""The kind of data `masked_text`: windows of running text with masked tokens, for an encoder.

A row is [CLS] and model.context_length - 2 tokens of text and [SEP]. `data/framed/marks.py` says
which ids these marks have, and `data/framed/masking.py` which tokens are masked. Windows are those
of the kind `text`. Training masks them anew in every epoch; the evaluation set never changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import loader, store
from data.fields import Field
from data.framed import masking
from data.framed.marks import Marks, marks_of
from data.framed.text_rows import TextRows, text_rows
from data.kinds import text
from data.tokenizer import Tokenizer
from data.tokenizer import from_spec as tokenizer_of

FIELDS = ("tokens", "segments", "masked_places", "masked_tokens")
PREDICTS = "masked tokens"
TASK = ("data.masked",)
VALIDATION = "validation"  # in place of a seed


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, segments int32 [T]; for the K masked tokens, masked_places and
    masked_tokens int32 [K]. A token of -1 is not predicted."""
    return _spec(config.model.context_length, config.data.masked)


def _spec(length: int, share: float) -> dict[str, Field]:
    row, K = (length,), (masking.places_in(length - 2, share),)
    shapes = [(row, ("seq",))] * 2 + [(K, (None,))] * 2
    return {
        name: Field(shape, np.int32, axes)
        for name, (shape, axes) in zip(FIELDS, shapes, strict=True)
    }


def tokens(config: Any) -> int:
    """Tokens per row, [CLS] and [SEP] included."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Tokens of an existing tokenizer and its marks; ValueError for one that is trained first."""
    text.vocab_size(data)  # refuses those
    return marks_of(tokenizer_of(data.tokenizer)).vocab_size


def prepare(data: Any, progress: bool = True) -> "Dataset":
    """The text of a `data` section as tokens; raises what `store.prepare` raises."""
    token_store = store.prepare(data, progress=progress)
    return Dataset(token_store, marks_of(token_store.tokenizer))


@dataclass(frozen=True)
class Dataset:
    """A token store whose rows are framed and masked. `for_run` sets the sizes."""

    token_store: store.TokenStore
    marks: Marks
    length: int = 0  # tokens of a row, with its frame
    masked: float = 0.15
    rows: TextRows | None = None

    @property
    def hash(self) -> str:
        return self.token_store.hash

    @property
    def vocab_size(self) -> int:
        return self.marks.vocab_size

    @property
    def tokenizer(self) -> Tokenizer:
        return self.token_store.tokenizer

    def for_run(self, config: Any) -> "Dataset":
        """The dataset with the sizes of a run. Raises ValueError, with the numbers, for too little
        training text, and without a validation window."""
        if (length := config.model.context_length) < 3:
            raise ValueError(
                f"model.context_length={length} has no room for a token between [CLS] and "
                "[SEP]; use 3 or more"
            )
        rows = text_rows(self.token_store, config, length - 2)
        return replace(self, length=length, masked=config.data.masked, rows=rows)

    def spec(self) -> dict[str, Field]:
        return _spec(self.length, self.masked)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return {name: x[0] for name, x in self.batches(split, seed, step, 1, rows).items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return self.rows.batches(self._rows, split, seed, step, count, rows)

    def examples(self, split: str) -> Iterator[loader.Batch]:
        for batch, fills_B in self.rows.examples(self._rows, split, VALIDATION):
            batch["masked_tokens"][fills_B] = -1
            yield batch

    def _rows(self, text_RN: np.ndarray, seed: int | str, row_R: np.ndarray) -> loader.Batch:
        """The fields of rows of text with the numbers `row`."""
        marks, key = self.marks, (self.hash, seed)
        shown_RN, place_RK, wanted_RK = masking.masked(
            text_RN, marks, self.tokenizer.vocab_size, self.masked, key, row_R
        )
        tokens_RT = np.full((len(text_RN), self.length), marks.end, np.int32)
        tokens_RT[:, 0], tokens_RT[:, 1:-1] = marks.begin, shown_RN
        return {
            "tokens": tokens_RT,
            "segments": np.ones_like(tokens_RT),
            "masked_places": place_RK + 1,  # after [CLS]
            "masked_tokens": wanted_RK,
        }

    def epochs(self, steps: float) -> float:
        return self.rows.epochs(steps)

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, so that filling masks does not need the text of the run."""
        self.tokenizer.save(workdir / "tokenizer")
