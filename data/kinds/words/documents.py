"""The kind of data `documents`: the words of whole documents, for counted families such as LSA.

A document is one of the corpus, or a piece of it with `data.document_words` words. Order within a
document has no meaning here. Unknown words are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import loader, store, tokenizer
from data.fields import Field
from data.kinds import text
from data.kinds.words.running_words import require_one_weight, words_of

FIELDS = ("documents",)
PREDICTS = "the words of whole documents"


def spec(config: Any) -> dict[str, Field]:
    """There are no batches: documents are counted."""
    return {}


def tokens(config: Any) -> int:
    """Words of a document, as results report them; 0 if documents are not cut."""
    return config.data.document_words


def vocab_size(data: Any) -> int:
    """Size of an existing tokenizer; ValueError for one that is trained on the text first."""
    return text.vocab_size(data)


def prepare(data: Any, progress: bool = True) -> "Dataset":
    """The words of a `data` section; raises what `store.prepare` raises."""
    require_one_weight(data)
    return Dataset(store.prepare(data, progress=progress), data.document_words)


@dataclass(frozen=True)
class Dataset:
    """A token store whose texts are documents."""

    token_store: store.TokenStore
    length: int  # words of a document, at most; 0: any number
    eval_documents: int = 0
    max_tokens: int = 0  # words of the training split in `texts`; 0: all

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
        """The dataset with the sizes of a run. ValueError without a document in each split."""
        sizes = {"eval_documents": config.eval.sequences, "max_tokens": config.data.max_tokens}
        dataset = replace(self, **sizes)
        for split in ("train", "validation"):
            if not dataset.texts(split):
                raise ValueError(
                    f"the {split} text has no document with a known word; use more text, or a "
                    f"larger data.validation than {config.data.validation}"
                )
        return dataset

    def texts(self, split: str) -> list[np.ndarray]:
        """The words of each document, int64 [N]: the first `data.max_tokens` of the training split,
        and of the validation split `eval.sequences` documents at most, spread evenly over it."""
        n_words = self.n_tokens(split)
        ids, document = (array[:n_words] for array in words_of(self.token_store, split))
        borders = document[1:] != document[:-1]
        if self.length:
            place = np.arange(len(ids)) - np.searchsorted(document, document)
            borders |= place[1:] % self.length == 0
        parts = np.split(ids.astype(np.int64), np.flatnonzero(borders) + 1)
        parts = [part for part in parts if len(part)]
        n = min(self.eval_documents, len(parts))
        if split == "train" or not n:
            return parts
        return [parts[(2 * i + 1) * len(parts) // (2 * n)] for i in range(n)]

    def n_tokens(self, split: str) -> int:
        """Words of `texts`; of the validation split all of them."""
        n_words = len(words_of(self.token_store, split).ids)
        return min(n_words, self.max_tokens or n_words) if split == "train" else n_words

    def windows(self, split: str) -> list[np.ndarray]:
        """None: documents are scored whole."""
        return []

    def spec(self) -> dict[str, Field]:
        return {}

    def batch(self, split: str, seed: int, step: int, rows: Any = None) -> loader.Batch:
        """Empty: documents are counted."""
        return {}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: Any = None
    ) -> loader.Batch:
        """Empty: documents are counted."""
        return {}

    def examples(self, split: str) -> Iterator[loader.Batch]:
        """None: documents are scored whole."""
        return iter(())

    def epochs(self, steps: float) -> float:
        return steps

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, which spells the words of a run."""
        self.tokenizer.save(workdir / "tokenizer")
