"""Makes batches as pure functions of (store, seed, step): there is no state to save.

A window is context_length + 1 tokens; windows overlap by one, so that every token but the first is
a target once an epoch. Window w of a split starts at token w * context_length, wherever documents
and shards begin; the few tokens after the last whole window are left out. Each epoch is a
permutation of all windows (`data/order.py`).

Rows have global numbers: row r of step s is s * batch_size + r, whichever host loads it, so the
global batch does not depend on the number of hosts. A mixture deals these rows out in blocks that
hold exactly `weights[c]` rows of component c, evenly spread. Each component has its own epochs.
"""

import functools
from collections.abc import Iterator

import numpy as np

from data.order import permute
from data.shards import Split
from data.store import TokenStore

Batch = dict[str, np.ndarray]
Rows = slice | range | np.ndarray  # which of a batch


def read_batch(
    store: TokenStore,
    seed: int,
    step: int,
    batch_size: int,
    context_length: int,
    rows: Rows | None = None,
    split: str = "train",
) -> Batch:
    """tokens, targets int32 [B, T] and weights float32 [B, T] of one step or of its `rows`."""
    chunk = read_chunk(store, seed, step, 1, batch_size, context_length, rows, split)
    return {name: array[0] for name, array in chunk.items()}


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
    require_windows(store, batch_size, context_length)
    in_batch = _rows(batch_size, rows)
    row = (np.arange(first_step, first_step + steps)[:, None] * batch_size + in_batch).ravel()
    windows = _shuffled_windows(store, seed, row, context_length, split)
    return _batch(windows.reshape(steps, len(in_batch), context_length + 1))


def eval_batches(
    store: TokenStore,
    n_sequences: int,
    batch_size: int,
    context_length: int,
    rows: Rows | None = None,
    split: str = "validation",
) -> Iterator[Batch]:
    """The fixed evaluation set of a split: always the same windows, evenly spread over it.

    `n_sequences` are divided among the components by weight; a component with fewer windows gives
    all it has. The last batch is padded with rows of weight 0. A batch has one more field than in
    training: bytes float32 [B], the bytes of text that the targets of a row stand for.
    """
    windows = _fixed_windows(store, n_sequences, context_length, split)
    in_batch = _rows(batch_size, rows)
    for first in range(0, len(windows), batch_size):
        row = first + in_batch
        batch = _batch(windows[np.minimum(row, len(windows) - 1)])
        batch["weights"][row >= len(windows)] = 0
        text_bytes = (store.token_bytes[batch["targets"]] * batch["weights"]).sum(-1)
        batch["bytes"] = text_bytes.astype(np.float32)
        yield batch


def n_windows(split: Split, context_length: int) -> int:
    """Windows of an epoch of `split`."""
    return max(0, split.n_tokens - 1) // context_length


def epochs_of_data(store: TokenStore, steps: int, batch_size: int, context_length: int) -> float:
    """How often `steps` steps read the training text; of a mixture, its most repeated component."""
    require_windows(store, batch_size, context_length)
    return max(
        steps
        * batch_size
        * weight
        / sum(store.weights)
        / n_windows(part.splits["train"], context_length)
        for part, weight in zip(store.components, store.weights, strict=True)
    )


def require_windows(store: TokenStore, batch_size: int, context_length: int) -> None:
    """ValueError, with the numbers, when the training text is smaller than one batch."""
    found = 0
    for part in store.components:
        windows = n_windows(part.splits["train"], context_length)
        found += windows
        if windows < 1:
            raise ValueError(_too_small(part.name, part.splits["train"], "train", context_length))
    if found < batch_size:
        raise ValueError(
            f"the training text holds {found} sequences of model.context_length={context_length}, "
            f"a batch needs train.batch_size={batch_size}; use more text or a smaller batch"
        )


def _too_small(name: str, split: Split, kind: str, context_length: int) -> str:
    return (
        f"corpus {name!r} has {split.n_tokens} {kind} tokens in {split.n_documents} documents, one "
        f"sequence needs model.context_length={context_length} and one; use more text"
    )


def _rows(batch_size: int, rows: Rows | None) -> np.ndarray:
    if rows is None:
        return np.arange(batch_size)
    if isinstance(rows, slice):
        return np.arange(batch_size)[rows]
    if len(rows) and not 0 <= min(rows) <= max(rows) < batch_size:
        raise ValueError(f"rows={rows} are not within batch_size={batch_size}")
    return np.asarray(rows, np.int64)


def _shuffled_windows(
    store: TokenStore, seed: int, row: np.ndarray, context_length: int, split: str
) -> np.ndarray:
    """The windows [n, T + 1], as they are stored, of the numbered rows `row` [n]."""
    component, turn = _deal(row, store.weights)
    found = []
    for number, part in enumerate(store.components):
        tokens = part.splits[split]
        mine = turn[component == number]
        window = _shuffled(mine, n_windows(tokens, context_length), seed, number)
        found.append(tokens.read(window * context_length, context_length + 1))
    if len(found) == 1:
        return found[0]
    windows = np.empty((len(row), context_length + 1), found[0].dtype)
    for number, part in enumerate(found):
        windows[component == number] = part
    return windows


def _deal(row: np.ndarray, weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The component of each numbered row, and how many rows that component had before it."""
    pattern, before = _block(weights)
    block, place = np.divmod(row, len(pattern))
    component = pattern[place]
    return component, block * np.array(weights)[component] + before[place]


@functools.lru_cache
def _block(weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The component of each place in a block, and its earlier places in it; each evenly spread."""
    ideal = np.concatenate([(np.arange(weight) + 0.5) / weight for weight in weights])
    order = np.argsort(ideal, kind="stable")
    component = np.repeat(np.arange(len(weights)), weights)[order]
    before = np.concatenate([np.arange(weight) for weight in weights])[order]
    return component, before


def _shuffled(turn: np.ndarray, n: int, seed: int, component: int) -> np.ndarray:
    """The windows that a component deals at its turns number `turn`, epoch after epoch."""
    epoch, place = np.divmod(turn, n)
    window = np.empty_like(turn)
    for number in range(epoch.min(), epoch.max() + 1) if len(turn) else ():
        now = epoch == number
        if now.all():
            return permute(place, n, seed, component, number)
        window[now] = permute(place[now], n, seed, component, number)
    return window


def fixed_starts(
    store: TokenStore, n_sequences: int, context_length: int, split: str = "validation"
) -> list[np.ndarray]:
    """Where each window of the fixed evaluation set begins, an array [n] for each component."""
    if n_sequences < 1:
        raise ValueError(f"eval.sequences={n_sequences} must be at least 1")
    component, _ = _deal(np.arange(n_sequences), store.weights)
    wanted = np.bincount(component, minlength=len(store.components))
    starts = []
    for part, sequences in zip(store.components, wanted, strict=True):
        tokens = part.splits[split]
        there = n_windows(tokens, context_length)
        if sequences and not there:
            small = _too_small(part.name, tokens, split, context_length)
            raise ValueError(f"{small}, more documents or a larger data.validation")
        n = min(int(sequences), there)
        # The middles of n equal stretches of the split.
        starts.append((2 * np.arange(n) + 1) * there // (2 * max(n, 1)) * context_length)
    return starts


def _fixed_windows(
    store: TokenStore, n_sequences: int, context_length: int, split: str
) -> np.ndarray:
    starts = fixed_starts(store, n_sequences, context_length, split)
    return np.concatenate(
        [
            part.splits[split].read(of_part, context_length + 1)
            for part, of_part in zip(store.components, starts, strict=True)
        ]
    )


def _batch(windows: np.ndarray) -> Batch:
    """Windows [..., T + 1] as what is read and what is predicted from it."""
    return {
        "tokens": windows[..., :-1].astype(np.int32, order="C"),
        "targets": windows[..., 1:].astype(np.int32, order="C"),
        "weights": np.ones((*windows.shape[:-1], windows.shape[-1] - 1), np.float32),
    }
