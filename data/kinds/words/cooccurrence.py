"""The kind of data `cooccurrence`: the entries of a word-by-word co-occurrence matrix, for GloVe.

X_ij adds 1 / d for each pair of the words i and j that are d words apart in a document of the
training text, d up to `data.window` (Pennington et al. 2014, section 4.2). X is symmetric. A share
`data.held_out_pairs` of its pairs of words, the same for every seed, is never trained on: the
evaluation set. A row holds `data.entries` entries.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data import loader, store, tokenizer
from data.fields import Field
from data.kinds import text
from data.kinds.words.running_words import Words, require_one_weight, words_of
from data.order import permute

TYPES = {"row": np.int32, "column": np.int32, "count": np.float32}
FIELDS = tuple(TYPES)
PREDICTS = "entries of a co-occurrence matrix"
TASK = ("data.window",)
CHUNK = 1 << 20  # words that are counted at a time


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: row, column int32 [T], two words, and count float32 [T]."""
    shape = (config.data.entries,)
    return {name: Field(shape, dtype, ("seq",)) for name, dtype in TYPES.items()}


def tokens(config: Any) -> int:
    """Entries per row."""
    return config.data.entries


def vocab_size(data: Any) -> int:
    """Size of an existing tokenizer; ValueError for one that is trained on the text first."""
    return text.vocab_size(data)


def prepare(data: Any, progress: bool = True) -> "Dataset":
    """The words of a `data` section; raises what `store.prepare` raises."""
    require_one_weight(data)
    return Dataset(store.prepare(data, progress=progress))


class Entries(NamedTuple):
    """Entries of a matrix that are not 0."""

    row: np.ndarray  # int32 [E]
    column: np.ndarray  # int32 [E]
    count: np.ndarray  # float32 [E]


def count_pairs(words: Words, window: int, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """(keys i V + j of the pairs of words i ≤ j, sorted, int64 [E]; Σ 1 / d of each [E])."""
    keys, sums = np.empty(0, np.int64), np.empty(0)
    for first in range(0, len(words.ids), CHUNK):
        ids, document = (array[first : first + CHUNK + window] for array in words)
        found = [keys]
        weights = [sums]
        for d in range(1, min(window, len(ids) - 1) + 1):
            one, other = ids[:-d][:CHUNK].astype(np.int64), ids[d:][:CHUNK]
            inside = document[:-d][:CHUNK] == document[d:][:CHUNK]
            low, high = np.minimum(one, other)[inside], np.maximum(one, other)[inside]
            found.append(low * vocab_size + high)
            weights.append(np.full(len(low), 1 / d))
        keys, number = np.unique(np.concatenate(found), return_inverse=True)
        sums = np.bincount(number, np.concatenate(weights), len(keys))
    return keys, sums


def split_entries(
    keys: np.ndarray, sums: np.ndarray, vocab_size: int, held_out: float
) -> dict[str, Entries]:
    """The entries of both splits. Both orders of a pair of words are in the same split."""
    low, high = np.divmod(keys, vocab_size)
    place = permute(np.arange(len(keys)), len(keys), 0) if len(keys) else keys
    held = place < round(held_out * len(keys))
    entries = {}
    for split, chosen in (("train", ~held), ("validation", held)):
        i, j, x = low[chosen], high[chosen], sums[chosen]
        twice = i != j
        # A word beside itself is seen from both of its places.
        row, column = np.concatenate([i, j[twice]]), np.concatenate([j, i[twice]])
        count = np.concatenate([np.where(twice, x, 2 * x), x[twice]])
        entries[split] = Entries(*map(np.ndarray.astype, (row, column, count), TYPES.values()))
    return entries


@dataclass(frozen=True, eq=False)
class Dataset:
    """A token store. `for_run` sets the sizes of batches; the matrix is counted when it is used."""

    token_store: store.TokenStore
    config: Any = None
    counted: dict[tuple, dict[str, Entries]] = field(default_factory=dict)  # by keys of `data`

    @property
    def hash(self) -> str:
        return self.token_store.hash

    @property
    def vocab_size(self) -> int:
        return self.token_store.vocab_size

    @property
    def tokenizer(self) -> tokenizer.Tokenizer:
        return self.token_store.tokenizer

    def for_run(self, config: Any) -> "Dataset":
        """The dataset with the sizes of a run. ValueError, with the numbers, if a split has no
        whole row."""
        dataset = replace(self, config=config)
        found, held = (len(dataset.entries[split].row) for split in ("train", "validation"))
        if found < config.data.entries:
            raise ValueError(
                f"the co-occurrence matrix has {found} entries to train on, fewer than a row of "
                f"data.entries={config.data.entries}; use more text, or data.entries={found or 1}"
            )
        if not held:
            raise ValueError(
                f"data.held_out_pairs={config.data.held_out_pairs} holds out none of the {found} "
                "entries of the co-occurrence matrix, so there is nothing to evaluate on; use a "
                "larger share, such as 0.05, or more text"
            )
        return dataset

    @property
    def entries(self) -> dict[str, Entries]:
        """The entries of both splits, counted once."""
        key = window, held_out = self.config.data.window, self.config.data.held_out_pairs
        if key not in self.counted:
            words = words_of(self.token_store, "train")
            sums = count_pairs(words, window, self.vocab_size)
            self.counted[key] = split_entries(*sums, self.vocab_size, held_out)
        return self.counted[key]

    def spec(self) -> dict[str, Field]:
        return spec(self.config)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        chunk = self.batches(split, seed, step, 1, rows)
        return {name: array[0] for name, array in chunk.items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        """Arrays [count, B, T]; each epoch is a permutation of all entries."""
        size, length = self.config.train.batch_size, self.config.data.entries
        row = loader.rows_of_steps(step, count, size, rows).reshape(count, -1)
        place = row[..., None] * length + np.arange(length)
        epoch, place = np.divmod(place, n := len(self.entries[split].row))
        for number in range(epoch.min(), epoch.max() + 1) if place.size else ():
            of_epoch = epoch == number
            place[of_epoch] = permute(place[of_epoch], n, seed, number)
        return {name: getattr(self.entries[split], name)[place] for name in FIELDS}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """Entries spread evenly over the split; the last batch is filled up with counts of 0."""
        entries, size = self.entries[split], self.config.eval.batch_size
        length, available = self.config.data.entries, len(entries.row)
        n = min(self.config.eval.sequences * length, available)
        chosen = loader.spread(n, available)
        for first in range(0, n, size * length):
            place = first + np.arange(size * length).reshape(size, length)
            inside = chosen[np.minimum(place, n - 1)]
            batch = {name: getattr(entries, name)[inside] for name in FIELDS}
            batch["count"][place >= n] = 0
            yield batch

    def epochs(self, steps: float) -> float:
        per_step = self.config.train.batch_size * self.config.data.entries
        return steps * per_step / len(self.entries["train"].row)

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, which spells the words of a run."""
        self.tokenizer.save(workdir / "tokenizer")
