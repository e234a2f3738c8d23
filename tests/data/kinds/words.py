"""A token store of documents of numbers, for the kinds of data that read words."""

from types import SimpleNamespace

import numpy as np
from ml_collections import ConfigDict


def store(
    documents: list[list[int]], vocab_size: int, unknown: int | None = None
) -> SimpleNamespace:
    """What the kinds read of a TokenStore: both splits hold the documents, in two shards; the last
    id of the vocabulary ends them."""
    end = vocab_size - 1
    tokens = np.concatenate([[*document, end] for document in documents]).astype("<u2")
    split = SimpleNamespace(shards=(tokens[:7], tokens[7:]))
    return SimpleNamespace(
        components=(SimpleNamespace(splits={"train": split, "validation": split}),),
        tokenizer=SimpleNamespace(eod=end, unknown=unknown),
        vocab_size=vocab_size,
        hash="of-the-content",
    )


def config(model: dict, data: dict, batch_size: int = 4, sequences: int = 4) -> ConfigDict:
    sizes = {"train": {"batch_size": batch_size}, "eval": {"sequences": sequences, "batch_size": 4}}
    return ConfigDict({"model": model, "data": data} | sizes)
