"""Batches whose rows read on: row r of a step begins where row r of the step before ended.

For models that carry their state from step to step. The rows of a batch are spread evenly over a
split, and each walks through all of it; after the last window it goes on with the first. Every
window is read once in n / batch_size steps. As in `data/loader.py`, batches are a pure function of
(store, seed, step, row); the seed sets where the rows begin.
"""

from collections.abc import Iterator

import numpy as np

from data.loader import Batch, Rows, batch_of, n_windows, rows_of, scored
from data.order import permute
from data.store import TokenStore


def require_one_corpus(store: TokenStore) -> None:
    """Raises ValueError for a mixture, whose rows would jump between its texts."""
    if len(store.components) > 1:
        raise ValueError(
            f"model.carry_state=True reads one text from beginning to end, but data.corpora has "
            f"{len(store.components)}; name one, or use model.carry_state=False"
        )


def read_chunk(
    store: TokenStore,
    seed: int,
    first_step: int,
    steps: int,
    batch_size: int,
    context_length: int,
    rows: Rows | None = None,
    split: str = "train",
) -> Batch:
    """The batches of `steps` steps from `first_step` on: arrays [K, B, T]."""
    tokens = store.components[0].splits[split]
    n, row_B = n_windows(tokens, context_length), rows_of(batch_size, rows)
    begin_B = permute(np.zeros(1, np.int64), n, seed) + row_B * n // batch_size
    window_KB = (begin_B + np.arange(first_step, first_step + steps)[:, None]) % n
    windows = tokens.read(window_KB.ravel() * context_length, context_length + 1)
    return batch_of(windows.reshape(steps, len(row_B), context_length + 1))


def eval_batches(
    store: TokenStore, n_sequences: int, batch_size: int, context_length: int, split: str
) -> Iterator[Batch]:
    """The fixed evaluation set: row r of a batch goes on where row r of the batch before ended.

    `n_sequences` is rounded up to whole batches. A row that comes to where the next row began has
    weight 0 from there on.
    """
    tokens = store.components[0].splits[split]
    for start_B, counts_B in eval_starts(store, n_sequences, batch_size, context_length, split):
        yield scored(store, tokens.read(start_B, context_length + 1), counts_B)


def eval_starts(
    store: TokenStore, n_sequences: int, batch_size: int, context_length: int, split: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(the first token of each row [B], whether the row counts [B]) of each batch of the set."""
    n = n_windows(store.components[0].splits[split], context_length)
    edges = np.arange(batch_size + 1) * n // batch_size
    for step in range(-(-n_sequences // batch_size)):
        window_B, counts_B = edges[:-1] + step, edges[:-1] + step < edges[1:]
        if not counts_B.any():
            return
        yield np.minimum(window_B, n - 1) * context_length, counts_B
