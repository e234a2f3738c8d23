"""The kind of data `unlearning`: statements to be forgotten, beside running text that is kept.

    forget = 1   . Kalo lives in Borne .         weights 1 on Borne alone
    forget = 0   a window of running text        weights 1, as in the kind `text`

A share data.forget_share of the rows of a batch are statements. In evaluation all statements come
first and then the windows of the validation split.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import loader
from data.fields import Field
from data.files import specs_of
from data.kinds import text
from data.kinds.unlearning.statements import Statements, statements
from data.tokenizer import Tokenizer

FIELDS = ("tokens", "targets", "weights", "forget")
PREDICTS = "the next token of text that is kept"


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, targets int32 [T], weights float32 [T] and forget float32 []."""
    return text.spec(config) | {"forget": Field((), np.float32, ())}


def tokens(config: Any) -> int:
    """Tokens per row, padding included."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Size of an existing tokenizer; ValueError for one that is trained on the text first."""
    return text.vocab_size(data)


def prepare(data: Any, progress: bool = True) -> "Dataset":
    """Both parts of a `data` section as tokens; raises what `store.prepare` and `statements`
    raise."""
    if not 0 < data.forget_share < 1:
        raise ValueError(f"data.forget_share={data.forget_share} must be above 0 and below 1")
    kept = text.prepare(data, progress)
    return Dataset(kept, statements(specs_of(data.forget), kept.tokenizer), data.forget_share)


@dataclass(frozen=True)
class Dataset:
    """Statements and running text. `for_run` sets the sizes."""

    kept: text.Dataset
    statements: Statements
    share: float
    forget_rows: int = 0  # of a batch
    eval_batch_size: int = 0

    @property
    def hash(self) -> str:
        about = f"{self.kept.hash} {self.statements.hash} {self.share}"
        return hashlib.sha256(about.encode()).hexdigest()

    @property
    def vocab_size(self) -> int:
        return self.kept.vocab_size

    @property
    def tokenizer(self) -> Tokenizer:
        return self.kept.tokenizer

    @property
    def unknown_share(self) -> dict[str, float] | None:
        return self.kept.unknown_share

    def for_run(self, config: Any) -> "Dataset":
        """The dataset with the sizes of a run. Raises ValueError for a batch without rows of one
        part, a statement longer than the context, and what the kind `text` raises."""
        size, length = config.train.batch_size, config.model.context_length
        rows = round(size * self.share)
        if not 0 < rows < size:
            raise ValueError(
                f"data.forget_share={self.share} of train.batch_size={size} rows is {rows}; both "
                "parts need a row: use a larger batch, or a share nearer to 0.5"
            )
        if (longest := self.statements.longest - 1) > length:
            raise ValueError(
                f"data.forget has a statement of {longest} tokens, above model.context_length="
                f"{length}; shorten it"
            )
        kept = replace(self.kept.for_run(config), batch_size=size - rows)
        return replace(self, kept=kept, forget_rows=rows, eval_batch_size=config.eval.batch_size)

    def spec(self) -> dict[str, Field]:
        return self.kept.spec() | {"forget": Field((), np.float32, ())}

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return {name: x[0] for name, x in self.batches(split, seed, step, 1, rows).items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        """The first rows of each batch are statements, each of which comes once an epoch."""
        F, size = self.forget_rows, self.forget_rows + self.kept.batch_size
        row_B = loader.rows_of_batch(size, rows)
        forgets_B = row_B < F
        number = (np.arange(step, step + count)[:, None] * F + row_B[forgets_B]).ravel()
        number = loader.shuffled(number, len(self.statements), seed, 0)
        forget = self.statements.rows(number, self.kept.length)
        kept = self.kept.batches(split, seed, step, count, row_B[~forgets_B] - F)
        batch = {"forget": np.tile(forgets_B.astype(np.float32), (count, 1))}
        for name, x in forget.items():
            batch[name] = np.empty((count, len(row_B), self.kept.length), x.dtype)
            batch[name][:, forgets_B] = x.reshape(count, forgets_B.sum(), self.kept.length)
            batch[name][:, ~forgets_B] = kept[name]
        return batch

    def examples(self, split: str) -> Iterator[loader.Batch]:
        size = self.eval_batch_size
        for first in range(0, len(self.statements), size):
            number = np.minimum(first + np.arange(size), len(self.statements) - 1)
            batch = self.statements.rows(number, self.kept.length)
            batch["weights"][first + np.arange(size) >= len(self.statements)] = 0
            yield self._marked(batch, 1.0)
        for batch in self.kept.examples(split):
            yield self._marked(batch, 0.0)

    def _marked(self, batch: loader.Batch, forget: float) -> loader.Batch:
        """An evaluation batch with what it is, and the bytes of text that is kept if tokens
        determine them."""
        size = len(batch["tokens"])
        if self.kept.token_store.token_bytes is not None:
            batch = {"bytes": np.zeros(size, np.float32)} | batch
        return batch | {"forget": np.full(size, forget, np.float32)}

    def epochs(self, steps: float) -> float:
        return max(self.kept.epochs(steps), steps * self.forget_rows / len(self.statements))

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, so that sampling from the run does not need its text."""
        self.kept.save(workdir)
