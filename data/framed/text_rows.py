"""Windows of running text that a kind of data makes its rows of, such as masked ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from data import loader
from data.store import TokenStore

Make = Callable[[np.ndarray, Any, np.ndarray], loader.Batch]
"""(text [R, N], the seed, the numbers [R] of the rows) → the fields of the rows [R, ...]."""


@dataclass(frozen=True)
class TextRows:
    """The windows of the kind `text`, of `length` tokens, and the sizes of a run."""

    token_store: TokenStore
    length: int
    batch_size: int
    eval_sequences: int
    eval_batch_size: int

    def batches(
        self, make: Make, split: str, seed: int, step: int, count: int, rows: loader.Rows | None
    ) -> loader.Batch:
        """The batches of `count` steps, arrays [count, B, ...]."""
        sizes = self.batch_size, self.length
        read = loader.read_chunk(self.token_store, seed, step, count, *sizes, rows, split)
        row = loader.rows_of_steps(step, count, self.batch_size, rows)
        made = make(read["tokens"].reshape(-1, self.length), seed, row)
        return {name: x.reshape(count, len(row) // count, -1) for name, x in made.items()}

    def examples(
        self, make: Make, split: str, key: Any
    ) -> Iterator[tuple[loader.Batch, np.ndarray]]:
        """(an evaluation batch, which of its rows only fill it up [B]) in order; `key` stands for
        the seed."""
        sizes = self.eval_sequences, self.eval_batch_size, self.length
        windows = loader.eval_batches(self.token_store, *sizes, split=split)
        for number, read in enumerate(windows):
            row_B = number * self.eval_batch_size + np.arange(len(read["tokens"]))
            yield make(read["tokens"], key, row_B), read["weights"][:, 0] == 0

    def epochs(self, steps: float) -> float:
        sizes = self.batch_size, self.length
        return loader.epochs_of_data(self.token_store, steps, *sizes)


def text_rows(token_store: TokenStore, config: Any, length: int) -> TextRows:
    """The windows of a run. ValueError, with the numbers, for too little training text, and without
    a validation window."""
    sizes = config.train.batch_size, config.eval.sequences, config.eval.batch_size
    loader.require_windows(token_store, config.train.batch_size, length)
    loader.fixed_starts(token_store, config.eval.sequences, length)
    return TextRows(token_store, length, *sizes)
