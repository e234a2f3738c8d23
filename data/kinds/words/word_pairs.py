"""The kind of data `word_pairs`: runs of words with what word2vec needs to pair them.

Each epoch leaves out frequent words at random ("subsampling", Mikolov et al. 2013b, section 2.3)
before any word is paired, so the words around a word come from farther away. What is left is cut in
rows of `model.context_length` words, spread evenly over it, in an order of its own. Noise words are
drawn with probabilities in proportion to count^`data.noise_power`.

A word with share f of the text is kept with the probability √(s / f) + s / f, s = `data.subsample`,
as in the authors' word2vec.c. (The paper prints 1 - √(s / f) for leaving it out.)
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import loader, store, tokenizer
from data.fields import Field
from data.kinds import text
from data.kinds.words.running_words import Words, require_one_weight, words_of
from data.order import permute

FIELDS = ("tokens", "segments", "reach", "negatives")
PREDICTS = "pairs of a word and its context"
TASK = ("model.method", "model.window", "model.dynamic_window", "data.subsample")
KEEP, DRAW = 1, 2  # streams of random numbers
SLOTS = 1 << 22  # of the table of noise words: its probabilities are multiples of 1 / SLOTS


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, segments (the document of each word) and reach (how far the words
    around it go) int32 [T]; negatives int32 [T, K]."""
    length, noise = config.model.context_length, config.model.negatives
    row = Field((length,), np.int32, ("seq",))
    negatives = Field((length, noise), np.int32, ("seq", None))
    return {"tokens": row, "segments": row, "reach": row, "negatives": negatives}


def tokens(config: Any) -> int:
    """Words per row, after subsampling."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Size of an existing tokenizer; ValueError for one that is trained on the text first."""
    return text.vocab_size(data)


def prepare(data: Any, progress: bool = True) -> "Dataset":
    """The words of a `data` section; raises what `store.prepare` raises."""
    require_one_weight(data)
    return Dataset(store.prepare(data, progress=progress))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A token store. `for_run` counts its words and sets the sizes of batches."""

    token_store: store.TokenStore
    config: Any = None
    words: dict[str, Words] | None = None  # by split
    counts: np.ndarray | None = None  # of each word in the training split [V]

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
        """The dataset with the sizes of a run. ValueError, with the numbers, for a model without a
        window, or a split with less than one row of words."""
        if "window" not in config.model:
            raise ValueError(
                f"model.family={config.model.family!r} has no window of words, which "
                "data.kind='word_pairs' needs; use word2vec"
            )
        words = {split: words_of(self.token_store, split) for split in ("train", "validation")}
        counts = np.bincount(words["train"].ids, minlength=self.vocab_size)
        sized = replace(self, config=config, words=words, counts=counts)
        for split in words:
            sized.n_rows(split)
        return sized

    def spec(self) -> dict[str, Field]:
        return spec(self.config)

    @functools.cached_property
    def keep(self) -> np.ndarray:
        """The probability that each word is kept [V]."""
        subsample = self.config.data.subsample
        if not subsample:
            return np.ones(self.vocab_size)
        ratio = subsample * self.counts.sum() / np.maximum(self.counts, 1)
        return np.minimum(1.0, np.sqrt(ratio) + ratio)

    @functools.cached_property
    def noise(self) -> np.ndarray:
        """Words in proportion to count^noise_power, int32 [SLOTS], as the table of word2vec.c."""
        power = self.counts**self.config.data.noise_power
        ends = np.rint(np.cumsum(power) / power.sum() * SLOTS).astype(np.int64)
        return np.repeat(np.arange(self.vocab_size, dtype=np.int32), np.diff(ends, prepend=0))

    def n_rows(self, split: str) -> int:
        """Rows of an epoch: what is left of a split on average. ValueError for less than one."""
        expected = int(self.keep[self.words[split].ids].sum())
        length = self.config.model.context_length
        if expected - 5 * expected**0.5 < length:  # an epoch with less is a 5-sigma event
            raise ValueError(
                f"{expected} words are left of the {split} text after data.subsample="
                f"{self.config.data.subsample}, fewer than a row of model.context_length={length}; "
                "use more text or a shorter row"
            )
        return expected // length

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a dataset lives as long as its process
    def left(self, split: str, seed: int, epoch: int) -> Words:
        """The words that subsampling leaves of an epoch."""
        ids, document = self.words[split]
        rng = np.random.default_rng((seed, KEEP, epoch))
        kept = rng.random(len(ids), np.float32) < self.keep[ids]
        return Words(ids[kept], document[kept])

    def places(self, split: str, seed: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(epoch, place in it) of rows, counted over all epochs; an epoch of the training split is
        a permutation of its places."""
        rows = self.n_rows_of[split]
        epochs, places = np.divmod(numbers, rows)
        for epoch in np.unique(epochs) if split == "train" else ():
            here = epochs == epoch
            places[here] = permute(places[here], rows, seed, int(epoch))
        return epochs, places

    def row(self, split: str, seed: int, number: int, epoch: int, place: int) -> loader.Batch:
        """The row with this number, counted over all epochs, at a place of its epoch."""
        ids, document = self.left(split, seed, epoch)
        model = self.config.model
        length, window, noise = model.context_length, model.window, model.negatives
        first = (len(ids) - length) * place // max(self.n_rows_of[split] - 1, 1)
        rng = np.random.default_rng((seed, DRAW, number))
        lowest = 1 if model.dynamic_window else window
        return {
            "tokens": ids[first : first + length],
            "segments": document[first : first + length],
            "reach": rng.integers(lowest, window + 1, length, np.int32),
            "negatives": self.noise[rng.integers(SLOTS, size=(length, noise))],
        }

    @functools.cached_property
    def n_rows_of(self) -> dict[str, int]:
        return {split: self.n_rows(split) for split in self.words}

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        chunk = self.batches(split, seed, step, 1, rows)
        return {name: array[0] for name, array in chunk.items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        size = self.config.train.batch_size
        numbers = loader.rows_of_steps(step, count, size, rows)
        return self._stacked(split, seed, numbers, (count, len(numbers) // count))

    def _stacked(
        self, split: str, seed: int, numbers: np.ndarray, shape: tuple[int, ...]
    ) -> loader.Batch:
        places = zip(numbers, *self.places(split, seed, numbers), strict=True)
        found = [self.row(split, seed, *map(int, place)) for place in places]
        stacked = {name: np.stack([row[name] for row in found]) for name in FIELDS}
        return {name: array.reshape(*shape, *array.shape[1:]) for name, array in stacked.items()}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """Rows spread evenly over one subsampled epoch, the same for every run; the last batch is
        filled up with rows of segment 0."""
        available, size = self.n_rows_of[split], self.config.eval.batch_size
        n = min(self.config.eval.sequences, available)
        numbers = loader.spread(n, available)
        for first in range(0, n, size):
            row = first + np.arange(size)
            batch = self._stacked(split, 0, numbers[np.minimum(row, n - 1)], (size,))
            batch["segments"][row >= n] = 0
            yield batch

    def epochs(self, steps: float) -> float:
        return steps * self.config.train.batch_size / self.n_rows_of["train"]

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, which spells the words of a run."""
        self.tokenizer.save(workdir / "tokenizer")
