"""This file makes batches: pure functions of (dataset, seed, step), so there is no state to lose.

A window is context_length + 1 tokens; windows overlap by one, so that every token but the first is
a target once an epoch. Window w of a split starts at token w * context_length, wherever documents
and shards begin; the few tokens after the last whole window are left out. Each epoch is a
permutation of all windows (`data/order.py`).

Rows are numbered through: row r of step s is s * batch_size + r, whoever loads it, so any number of
hosts that each load their rows see the same global batch. A mixture deals the numbered rows out in
blocks that hold exactly `weights[c]` rows of component c, evenly spread, and each component walks
through epochs of its own.
"""

import contextlib
import functools
import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np

from data.order import permute
from data.shards import Split
from data.store import Dataset

Batch = dict[str, np.ndarray]
Rows = slice | range | np.ndarray  # which of a batch


def train_batch(
    dataset: Dataset,
    seed: int,
    step: int,
    batch_size: int,
    context_length: int,
    rows: Rows | None = None,
) -> Batch:
    """tokens, targets int32 [B, T] and weights float32 [B, T] of one step, or the `rows` of it."""
    chunk = train_chunk(dataset, seed, step, 1, batch_size, context_length, rows)
    return {name: array[0] for name, array in chunk.items()}


def train_chunk(
    dataset: Dataset,
    seed: int,
    first_step: int,
    steps: int,
    batch_size: int,
    context_length: int,
    rows: Rows | None = None,
) -> Batch:
    """The batches of `steps` steps from `first_step` on: arrays [K, B, T]."""
    require_windows(dataset, batch_size, context_length)
    in_batch = _rows(batch_size, rows)
    row = (np.arange(first_step, first_step + steps)[:, None] * batch_size + in_batch).ravel()
    windows = _train_windows(dataset, seed, row, context_length)
    return _batch(windows.reshape(steps, len(in_batch), context_length + 1))


def eval_batches(
    dataset: Dataset,
    n_sequences: int,
    batch_size: int,
    context_length: int,
    rows: Rows | None = None,
) -> Iterator[Batch]:
    """The fixed validation set: the same windows each time, evenly spread over the split.

    A mixture shares `n_sequences` out by its weights; where there are fewer windows, all are taken.
    The last batch is filled up with rows of weight 0.
    """
    windows = _validation_windows(dataset, n_sequences, context_length)
    in_batch = _rows(batch_size, rows)
    for first in range(0, len(windows), batch_size):
        row = first + in_batch
        batch = _batch(windows[np.minimum(row, len(windows) - 1)])
        batch["weights"][row >= len(windows)] = 0
        yield batch


def n_windows(split: Split, context_length: int) -> int:
    """Windows of an epoch of `split`."""
    return max(0, split.n_tokens - 1) // context_length


def epochs_of_data(dataset: Dataset, steps: int, batch_size: int, context_length: int) -> float:
    """How often `steps` steps read the training text; of a mixture, its most repeated component."""
    require_windows(dataset, batch_size, context_length)
    return max(
        steps
        * batch_size
        * weight
        / sum(dataset.weights)
        / n_windows(part.splits["train"], context_length)
        for part, weight in zip(dataset.components, dataset.weights, strict=True)
    )


def require_windows(dataset: Dataset, batch_size: int, context_length: int) -> None:
    """ValueError, with the numbers, when the training text is smaller than one batch."""
    found = 0
    for part in dataset.components:
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


def _train_windows(dataset: Dataset, seed: int, row: np.ndarray, context_length: int) -> np.ndarray:
    """The windows [n, T + 1], as they are stored, of the numbered rows `row` [n]."""
    component, turn = _deal(row, dataset.weights)
    found = []
    for number, part in enumerate(dataset.components):
        split = part.splits["train"]
        mine = turn[component == number]
        window = _shuffled(mine, n_windows(split, context_length), seed, number)
        found.append(split.read(window * context_length, context_length + 1))
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


def validation_starts(dataset: Dataset, n_sequences: int, context_length: int) -> list[np.ndarray]:
    """The first token of each window of the fixed validation set, by component [n] each."""
    if n_sequences < 1:
        raise ValueError(f"eval.sequences={n_sequences} must be at least 1")
    component, _ = _deal(np.arange(n_sequences), dataset.weights)
    wanted = np.bincount(component, minlength=len(dataset.components))
    starts = []
    for part, sequences in zip(dataset.components, wanted, strict=True):
        split = part.splits["validation"]
        there = n_windows(split, context_length)
        if sequences and not there:
            small = _too_small(part.name, split, "validation", context_length)
            raise ValueError(f"{small}, more documents or a larger data.validation")
        n = min(int(sequences), there)
        # The middles of n equal stretches of the split.
        starts.append((2 * np.arange(n) + 1) * there // (2 * max(n, 1)) * context_length)
    return starts


def _validation_windows(dataset: Dataset, n_sequences: int, context_length: int) -> np.ndarray:
    starts = validation_starts(dataset, n_sequences, context_length)
    return np.concatenate(
        [
            part.splits["validation"].read(of_part, context_length + 1)
            for part, of_part in zip(dataset.components, starts, strict=True)
        ]
    )


def _batch(windows: np.ndarray) -> Batch:
    """Windows [..., T + 1] as what is read and what is predicted from it."""
    return {
        "tokens": windows[..., :-1].astype(np.int32, order="C"),
        "targets": windows[..., 1:].astype(np.int32, order="C"),
        "weights": np.ones((*windows.shape[:-1], windows.shape[-1] - 1), np.float32),
    }


_END = object()


class prefetch:
    """Iterates over `iterator` with a thread that works up to `depth` items ahead.

    An exception in the thread is raised here, at its item's turn. `close`, or leaving a `with`,
    stops the thread; so does forgetting the iterator.
    """

    def __init__(self, iterator: Iterable, depth: int = 2):
        self._ready: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        arguments = (iterator, self._ready, self._closed)
        # The thread knows the queue, not this object: else it could never be forgotten.
        self._thread = threading.Thread(target=_fill, args=arguments, daemon=True)
        self._thread.start()

    def __iter__(self) -> "prefetch":
        return self

    def __next__(self) -> object:
        if self._closed.is_set():
            raise StopIteration
        item, error = self._ready.get()
        if item is _END:
            self.close()
            raise error or StopIteration
        return item

    def close(self) -> None:
        """Stops the thread and waits for the item that it is making."""
        self._closed.set()
        while self._thread.is_alive():
            self._make_room()
            self._thread.join(0.01)

    def __enter__(self) -> "prefetch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._closed.set()
        self._make_room()

    def _make_room(self) -> None:
        """Lets a thread go on that waits to hand over an item; it will see that it shall stop."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._ready.get_nowait()


def _fill(iterator: Iterable, ready: queue.Queue, closed: threading.Event) -> None:
    error = None
    try:
        for item in iterator:
            ready.put((item, None))
            if closed.is_set():
                return
    except BaseException as raised:
        error = raised
    ready.put((_END, error))
