"""Makes batches as pure functions of (store, seed, step): there is no state to save.

A window is context_length + 1 tokens; windows overlap by one, so every token except the first is a
target once per epoch. Window w of a split starts at token w * context_length, regardless of where
documents and shards begin; the tokens after the last whole window are not used. Each epoch is a
permutation of all windows (`data/order.py`).

Rows have global numbers: row r of step s is s * batch_size + r on every host, so the global batch
does not depend on the number of hosts. A mixture assigns these rows to components in blocks. Each
block holds exactly `weights[c]` rows of component c, evenly spread. Each component has its own
epochs.

For models that carry their state from step to step, `read_on_chunk` has another order: row r of a
step begins where row r of the step before ended. The rows are spread evenly over the split, and
each walks through all of it; after the last window it goes on with the first. Every window is read
once in n / batch_size steps; the seed sets where the rows begin.
"""

import functools
from collections.abc import Iterator

import numpy as np

from data.order import permute
from data.shards import Split
from data.store import TokenStore

Batch = dict[str, np.ndarray]
Rows = slice | range | np.ndarray  # indices of rows in a batch


def read_batch(
    store: TokenStore,
    seed: int,
    step: int,
    batch_size: int,
    context_length: int,
    rows: Rows | None = None,
    split: str = "train",
) -> Batch:
    """The batch of one step, or only its `rows`: tokens, targets int32 [B, T], weights float32."""
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
    row = rows_of_steps(first_step, steps, batch_size, rows)
    windows = _shuffled_windows(store, seed, row, context_length, split)
    return _batch(windows.reshape(steps, -1, context_length + 1))


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
    all of them. The last batch is padded with rows of weight 0. Batches have one more field than in
    training: bytes float32 [B], the bytes of text in the targets of each row, if tokens determine
    them.
    """
    windows = _fixed_windows(store, n_sequences, context_length, split)
    in_batch = rows_of_batch(batch_size, rows)
    for first in range(0, len(windows), batch_size):
        row = first + in_batch
        yield _scored(store, windows[np.minimum(row, len(windows) - 1)], row < len(windows))


def _scored(store: TokenStore, windows: np.ndarray, counts: np.ndarray) -> Batch:
    """An evaluation batch of windows [B, T + 1], in which only the rows that `counts` [B] count."""
    batch = _batch(windows)
    batch["weights"][~counts] = 0
    return with_bytes(batch, store.token_bytes)


def with_bytes(batch: Batch, token_bytes: np.ndarray | None) -> Batch:
    """The batch with one more field, bytes float32 [B], of the text in the targets of each row, if
    tokens determine them."""
    if token_bytes is None:
        return batch
    text_bytes = (token_bytes[batch["targets"]] * batch["weights"]).sum(-1)
    return batch | {"bytes": text_bytes.astype(np.float32)}


def require_one_corpus(store: TokenStore) -> None:
    """Raises ValueError for a mixture, whose rows would jump between its texts."""
    if len(store.components) > 1:
        raise ValueError(
            f"model.carry_state=True reads one text from beginning to end, but data.corpora has "
            f"{len(store.components)}; name one, or use model.carry_state=False"
        )


def read_on_chunk(
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
    n, row_B = n_windows(tokens, context_length), rows_of_batch(batch_size, rows)
    begin_B = permute(np.zeros(1, np.int64), n, seed) + row_B * n // batch_size
    window_KB = (begin_B + np.arange(first_step, first_step + steps)[:, None]) % n
    windows = tokens.read(window_KB.ravel() * context_length, context_length + 1)
    return _batch(windows.reshape(steps, len(row_B), context_length + 1))


def read_on_eval(
    store: TokenStore, n_sequences: int, batch_size: int, context_length: int, split: str
) -> Iterator[Batch]:
    """The fixed evaluation set: row r of a batch goes on where row r of the batch before ended.

    `n_sequences` is rounded up to whole batches. A row that comes to where the next row began has
    weight 0 from there on.
    """
    tokens = store.components[0].splits[split]
    for start_B, counts_B in read_on_starts(store, n_sequences, batch_size, context_length, split):
        yield _scored(store, tokens.read(start_B, context_length + 1), counts_B)


def read_on_starts(
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


def n_windows(split: Split, context_length: int) -> int:
    """Windows in one epoch of `split`."""
    return max(0, split.n_tokens - 1) // context_length


def epochs_of_data(store: TokenStore, steps: int, batch_size: int, context_length: int) -> float:
    """Epochs of the training text in `steps` steps; the largest of all components of a mixture."""
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
    """Raises ValueError, with the numbers, if the training text is smaller than one batch."""
    total = 0
    for part in store.components:
        windows = n_windows(part.splits["train"], context_length)
        total += windows
        if windows < 1:
            raise ValueError(_too_small(part.name, part.splits["train"], "train", context_length))
    if total < batch_size:
        raise ValueError(
            f"the training text holds {total} sequences of model.context_length={context_length}, "
            f"but a batch needs train.batch_size={batch_size}; use more text or a smaller batch"
        )


def _too_small(name: str, split: Split, kind: str, context_length: int) -> str:
    return (
        f"corpus {name!r} has {split.n_tokens} {kind} tokens in {split.n_documents} documents, but "
        f"one sequence needs model.context_length={context_length} plus 1; use more text"
    )


def rows_of_batch(batch_size: int, rows: Rows | None) -> np.ndarray:
    if rows is None:
        return np.arange(batch_size)
    if isinstance(rows, slice):
        return np.arange(batch_size)[rows]
    if len(rows) and not 0 <= min(rows) <= max(rows) < batch_size:
        raise ValueError(f"rows={rows} are not within batch_size={batch_size}")
    return np.asarray(rows, np.int64)


def rows_of_steps(first_step: int, steps: int, batch_size: int, rows: Rows | None) -> np.ndarray:
    """The global numbers of `rows` of the batches of `steps` steps [K * B], in order."""
    first_K1 = np.arange(first_step, first_step + steps)[:, None] * batch_size
    return (first_K1 + rows_of_batch(batch_size, rows)).ravel()


def spread(n: int, available: int) -> np.ndarray:
    """`n` numbers below `available`, evenly spread: the middles of n equal parts."""
    return (2 * np.arange(n) + 1) * available // (2 * max(n, 1))


def _shuffled_windows(
    store: TokenStore, seed: int, row: np.ndarray, context_length: int, split: str
) -> np.ndarray:
    """The windows [n, T + 1] of the rows with global numbers `row` [n], in the stored dtype."""
    component, rank = assign(row, store.weights)
    by_component = []
    for number, part in enumerate(store.components):
        tokens = part.splits[split]
        of_part = rank[component == number]
        window = shuffled(of_part, n_windows(tokens, context_length), seed, number)
        by_component.append(tokens.read(window * context_length, context_length + 1))
    if len(by_component) == 1:
        return by_component[0]
    windows = np.empty((len(row), context_length + 1), by_component[0].dtype)
    for number, of_part in enumerate(by_component):
        windows[component == number] = of_part
    return windows


def assign(row: np.ndarray, weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The component of each row, and its rank: the number of earlier rows of that component."""
    pattern, before = _block(weights)
    block, place = np.divmod(row, len(pattern))
    component = pattern[place]
    return component, block * np.array(weights)[component] + before[place]


@functools.lru_cache
def _block(weights: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The component of each place in a block, evenly spread, and its number of earlier places."""
    ideal = np.concatenate([(np.arange(weight) + 0.5) / weight for weight in weights])
    order = np.argsort(ideal, kind="stable")
    component = np.repeat(np.arange(len(weights)), weights)[order]
    before = np.concatenate([np.arange(weight) for weight in weights])[order]
    return component, before


def shuffled(rank: np.ndarray, n: int, seed: int, component: int) -> np.ndarray:
    """The windows of the rows of a component with these ranks; each epoch is shuffled anew."""
    epoch, place = np.divmod(rank, n)
    window = np.empty_like(rank)
    for number in range(epoch.min(), epoch.max() + 1) if len(rank) else ():
        in_epoch = epoch == number
        if in_epoch.all():
            return permute(place, n, seed, component, number)
        window[in_epoch] = permute(place[in_epoch], n, seed, component, number)
    return window


def fixed_starts(
    store: TokenStore, n_sequences: int, context_length: int, split: str = "validation"
) -> list[np.ndarray]:
    """The first token of each window of the fixed evaluation set, one array [n] per component."""
    if n_sequences < 1:
        raise ValueError(f"eval.sequences={n_sequences} must be at least 1")
    component, _ = assign(np.arange(n_sequences), store.weights)
    wanted = np.bincount(component, minlength=len(store.components))
    starts = []
    for part, sequences in zip(store.components, wanted, strict=True):
        tokens = part.splits[split]
        available = n_windows(tokens, context_length)
        if sequences and not available:
            small = _too_small(part.name, tokens, split, context_length)
            raise ValueError(f"{small}, more documents or a larger data.validation")
        n = min(int(sequences), available)
        starts.append(spread(n, available) * context_length)
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
    """Splits windows [..., T + 1] into inputs and targets."""
    return {
        "tokens": windows[..., :-1].astype(np.int32, order="C"),
        "targets": windows[..., 1:].astype(np.int32, order="C"),
        "weights": np.ones((*windows.shape[:-1], windows.shape[-1] - 1), np.float32),
    }
