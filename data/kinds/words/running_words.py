"""The words of a split without what is no word, and the document that each belongs to."""

from typing import Any, NamedTuple

import numpy as np

from data.store import TokenStore


class Words(NamedTuple):
    """Consecutive words of a split. Documents have numbers from 1 on, in the order of the text."""

    ids: np.ndarray  # int32 [N]
    document: np.ndarray  # int32 [N]


def words_of(store: TokenStore, split: str) -> Words:
    """The words of all components of a split; unknown words and ends of documents are left out."""
    parts = [shard for part in store.components for shard in part.splits[split].shards]
    tokens = np.concatenate([np.empty(0, np.int32), *parts]).astype(np.int32)
    end, unknown = store.tokenizer.eod, getattr(store.tokenizer, "unknown", None)
    ends = tokens == end
    document = np.cumsum(ends, dtype=np.int32) - ends + 1
    kept = ~ends if unknown is None else ~ends & (tokens != unknown)
    return Words(tokens[kept], document[kept])


def require_one_weight(data: Any) -> None:
    """ValueError for a mixture: word counts are those of all its texts."""
    if len(set(data.weights)) > 1:
        raise ValueError(
            f"data.weights={tuple(data.weights)} differ, but data.kind={data.kind!r} counts the "
            "words of all corpora together; give them equal weights"
        )
