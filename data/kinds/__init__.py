"""The kinds of data: what a batch holds and where it comes from.

A kind is a module with the functions of `Kind`; its `prepare` returns a `Dataset`. Everything
outside knows a batch as a dict of arrays whose first dimension is the batch's rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data.fields import Field
from data.kinds import text

Batch = dict[str, np.ndarray]


class Dataset(Protocol):
    """Prepared data. Batches are a pure function of (hash, seed, step, row).

    Data of tokens also has `vocab_size`."""

    hash: str  # of content alone: no path, name or date

    def for_run(self, config: Any) -> "Dataset":
        """This data cut into rows as a resolved config asks; ValueError if there is too little."""

    def spec(self) -> dict[str, Field]:
        """The fields of a training batch."""

    def batch(self, split: str, seed: int, step: int, rows: Any = None) -> Batch:
        """The batch of a step, arrays [B, ...]; with `rows`, those rows of it."""

    def batches(self, split: str, seed: int, step: int, count: int, rows: Any = None) -> Batch:
        """The batches of `count` steps from `step` on, arrays [count, B, ...]."""

    def examples(self, split: str) -> Iterator[Batch]:
        """The fixed evaluation set of a split in batches of `eval.batch_size` rows. They may have
        more fields than `spec` names, arrays [B] for the objective's metrics."""

    def epochs(self, steps: float) -> float:
        """How often that many steps read the training data; its most repeated part
        counts. 0 where no row comes twice."""

    def save(self, workdir: Path) -> None:
        """Keeps in a run's folder what a trained model needs of the data, such as a tokenizer."""


@runtime_checkable
class Countable(Protocol):
    """What a counted family reads of prepared data, beside a Dataset: its texts as a whole."""

    length: int  # tokens of a sequence of `examples`

    def texts(self, split: str) -> list[np.ndarray]:
        """All tokens of a split, an int64 array for each component."""

    def windows(self, split: str) -> list[np.ndarray]:
        """Where each sequence of `examples` begins in `texts`, an array for each component."""

    def n_tokens(self, split: str) -> int:
        """Tokens of a split, those that end documents included."""


class Kind(Protocol):
    """The interface of a module in KINDS. `config` is a resolved config, whose section `data` has
    the keys `kind` and `hash`."""

    FIELDS: tuple[str, ...]  # of every training batch

    def prepare(self, data: Any, progress: bool = True) -> Dataset:
        """Opens the data of a `data` section, building what its cache lacks. ValueError or
        FileNotFoundError in one line for what cannot be read."""

    def spec(self, config: Any) -> dict[str, Field]:
        """The fields of a training batch, known without reading any data."""

    def tokens(self, config: Any) -> int:
        """Tokens of one row, the unit that durations in tokens and results count."""

    def vocab_size(self, data: Any) -> int:
        """Size of the vocabulary, known without reading any data; ValueError where it is not."""


KINDS: dict[str, Kind] = {"text": text}
