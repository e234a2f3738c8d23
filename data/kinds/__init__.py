"""The kinds of data: what a batch holds and where it comes from.

A kind is a module with the functions of `Kind`; its `prepare` returns a `Dataset`. Other modules
see a batch only as a dict of arrays whose first dimension is the rows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data.fields import Field
from data.kinds import (
    conversations,
    joined_pairs,
    labelled,
    masked_text,
    pairs,
    preferences,
    spans,
    tagged,
    tasks,
    text,
)
from data.kinds.captioned import images, sounds
from data.kinds.unlearning import forgotten
from data.kinds.words import cooccurrence, documents, word_pairs

Batch = dict[str, np.ndarray]


class Dataset(Protocol):
    """Prepared data. Batches are a pure function of (hash, seed, step, row).

    Data that consists of tokens also has `vocab_size`, and text `tokenizer` and `unknown_share`, as
    a token store has them."""

    hash: str  # of the content only, not of paths, names or dates

    def for_run(self, config: Any) -> "Dataset":
        """This data, batched as a resolved config says; ValueError if there is too little."""

    def spec(self) -> dict[str, Field]:
        """The fields of a training batch."""

    def batch(self, split: str, seed: int, step: int, rows: Any = None) -> Batch:
        """The batch of a step, arrays [B, ...]. With `rows`, only those rows."""

    def batches(self, split: str, seed: int, step: int, count: int, rows: Any = None) -> Batch:
        """The batches of `count` steps from `step` on, arrays [count, B, ...]."""

    def examples(self, split: str) -> Iterator[Batch]:
        """The fixed evaluation set of a split in batches of `eval.batch_size` rows. Batches may
        have more fields than `spec`: arrays [B] for the objective's metrics."""

    def epochs(self, steps: float) -> float:
        """Epochs of the training data in `steps` steps, counted for its most repeated component.
        0 if no row is read twice."""

    def save(self, workdir: Path) -> None:
        """Writes to a run's folder what a trained model needs of the data, such as a tokenizer."""

    # Optional. evaluated: the hash of the validation examples in use (data/paired/evaluated.py).


@runtime_checkable
class Countable(Protocol):
    """What a counted family needs in addition to Dataset: the complete texts."""

    length: int  # tokens of a sequence of `examples`

    def texts(self, split: str) -> list[np.ndarray]:
        """All tokens of a split, one int64 array per component."""

    def windows(self, split: str) -> list[np.ndarray]:
        """Where each sequence of `examples` begins in `texts`, one array per component."""

    def n_tokens(self, split: str) -> int:
        """Tokens of a split, including end-of-document tokens."""


class Kind(Protocol):
    """The interface of a module in KINDS. `config` is a resolved config, whose section `data` has
    the keys `kind` and `hash`. Optional: `READS_ON = True` if, with `model.carry_state`, each row
    of a batch, and of `examples`, begins where the same row of the batch before ended; `TASK`:
    dotted keys that change what is predicted, which results state where they are not at their
    defaults; of kinds with a field `image`: `image_shape(data)`, its (height, width, channels),
    which become the key `image` of a model, and `reader(data)`, a function from a file's bytes to
    that field, which raises Unreadable."""

    FIELDS: tuple[str, ...]  # of every training batch
    PREDICTS: str  # what the loss is averaged over; losses of different ones are never compared

    def prepare(self, data: Any, progress: bool = True) -> Dataset:
        """Opens the data of a `data` section and builds what is not in its cache. Raises ValueError
        or FileNotFoundError, in one line, for data that cannot be read."""

    def spec(self, config: Any) -> dict[str, Field]:
        """The fields of a training batch, without reading any data."""

    def tokens(self, config: Any) -> int:
        """Tokens per row, as durations and results count them."""

    def vocab_size(self, data: Any) -> int:
        """Size of the vocabulary, without reading any data; ValueError if that is not possible."""


KINDS: dict[str, Kind] = {
    "text": text,
    "pairs": pairs,
    "joined_pairs": joined_pairs,
    "spans": spans,
    "masked_text": masked_text,
    "labelled": labelled,
    "tagged": tagged,
    "word_pairs": word_pairs,
    "cooccurrence": cooccurrence,
    "documents": documents,
    "conversations": conversations,
    "preferences": preferences,
    "tasks": tasks,
    "images": images,
    "sounds": sounds,
    "unlearning": forgotten,
}
