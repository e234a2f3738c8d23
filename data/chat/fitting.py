"""Which examples of a chat store fit the rows of a run, and what happens to those that do not."""

from typing import Any

import numpy as np

from data.chat.chat_store import ChatStore, listed


def fitting(
    store: ChatStore, split: str, most: int, data: Any, context_length: int, what: str
) -> tuple[np.ndarray, str]:
    """(numbers of the examples of a split that are used, a note about the others or '').

    Of those of the training split that fit, the first data.examples are used; ValueError if there
    are fewer. What is held out does not depend on it."""
    numbers, note = _fitting(store, split, most, data, context_length, what)
    if split != "train" or not data.examples:
        return numbers, note
    if data.examples > len(numbers):
        raise ValueError(
            f"data.examples={data.examples} is more than the {len(numbers):,} {what} for training; "
            "use 0 for all, or more data"
        )
    return numbers[: data.examples], note


def _fitting(
    store: ChatStore, split: str, most: int, data: Any, context_length: int, what: str
) -> tuple[np.ndarray, str]:
    """The same without data.examples.

    An example fits if all its sequences have at most `most` tokens. The rest is refused, dropped or
    kept to be truncated, as data.too_long says. ValueError for those that are refused, and for
    truncated ones that have no target left."""
    examples = store.splits[split]
    longest_N = examples.lengths_NK.max(1, initial=0)
    too_long = np.flatnonzero(longest_N > most)
    every = np.arange(len(examples))
    if not len(too_long):
        return every, ""
    first = f"{store.where[split][too_long[0]]} with {longest_N[too_long[0]]}"
    about = (
        f"{len(too_long):,} of {len(examples):,} {what} ({split}) have more than the {most} tokens "
        f"that fit model.context_length={context_length}, the first {first}"
    )
    if data.too_long == "refuse":
        need = int(longest_N.max()) - most + context_length
        raise ValueError(
            f"{about}; use model.context_length={need}, or data.too_long=drop"
            f"{' or truncate' if what == 'conversations' else ''}"
        )
    if data.too_long == "drop":
        return np.setdiff1d(every, too_long), f"{about}: dropped"
    begins_N = examples.begins_NK[:, 0]
    empty = [n for n in too_long if not examples.targets[begins_N[n] : begins_N[n] + most].any()]
    if empty:
        raise ValueError(
            f"{len(empty):,} {what} have nothing to train on in their first {most} tokens: "
            f"{listed([store.where[split][n] for n in empty])}; use a longer "
            "model.context_length, or data.too_long=drop"
        )
    return every, f"{about}: truncated"


def require_rows(store: ChatStore, numbers: dict[str, np.ndarray], rows: int, batch: int) -> None:
    """ValueError if the training rows do not fill a batch, or nothing is left for validation."""
    if rows < batch:
        raise ValueError(
            f"data.corpora={store.name!r} fills {rows} rows for training, but a batch needs "
            f"train.batch_size={batch}; use more data or a smaller batch"
        )
    if not len(numbers["validation"]):
        raise ValueError(
            f"data.corpora={store.name!r} has nothing for validation; use more data, or a larger "
            "data.validation"
        )


def require_choice(data: Any, key: str, known: tuple[str, ...]) -> None:
    """ValueError for an unknown value of a key."""
    if data[key] not in known:
        raise ValueError(f"data.{key}={data[key]!r} is unknown; use one of {', '.join(known)}")
