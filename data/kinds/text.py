"""The kind of data `text`: tokens for next-token prediction, in rows that are windows of the text
or, with data.rows=packed, whole documents (`data/packed/packed_rows.py`)."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import loader, store, tokenizer
from data.fields import Field
from data.packed.packed_rows import PackedStore, own_documents

FIELDS = ("tokens", "targets", "weights")
PREDICTS = "the next token of text"
READS_ON = True
ROWS = ("windows", "packed")


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, targets int32 [T] and weights float32 [T]; if rows are packed,
    segments and positions int32 [T]."""
    return _spec(config.model.context_length, rows_of(config.data) == "packed")


def _spec(length: int, packed: bool) -> dict[str, Field]:
    names = (*FIELDS, "segments", "positions") if packed else FIELDS
    dtypes = {"weights": np.float32}
    return {name: Field((length,), dtypes.get(name, np.int32), ("seq",)) for name in names}


def rows_of(data: Any) -> str:
    """`data.rows`, or windows where the config has no such key; ValueError if it is unknown."""
    rows = getattr(data, "rows", "windows")
    if rows not in ROWS:
        raise ValueError(f"data.rows={rows!r} is unknown; use one of {', '.join(ROWS)}")
    return rows


def tokens(config: Any) -> int:
    """Tokens per row."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Size of an existing tokenizer; ValueError for one that is trained on the text first."""
    if data.tokenizer in tokenizer.TRAINED:
        raise ValueError(
            f"model.vocab_size=0 means the size of the tokenizer, but data.tokenizer="
            f"{data.tokenizer!r} is trained on the text first; give --config.model.vocab_size=N"
        )
    return tokenizer.from_spec(data.tokenizer).vocab_size


def prepare(data: Any, progress: bool = True) -> "Dataset":
    """The text of a `data` section as tokens; raises what `store.prepare` raises."""
    rows_of(data)
    return Dataset(store.prepare(data, progress=progress))


@dataclass(frozen=True)
class Dataset:
    """A token store. `for_run` sets the sizes of batches and of the evaluation set, and whether
    each row continues the same row of the batch before, or holds packed documents."""

    token_store: store.TokenStore
    length: int = 0
    batch_size: int = 0
    eval_sequences: int = 0
    eval_batch_size: int = 0
    max_tokens: int = 0  # of the training split in `texts`; 0: all
    reads_on: bool = False
    packed: PackedStore | None = None

    @property
    def hash(self) -> str:
        return self.token_store.hash

    @property
    def vocab_size(self) -> int:
        return self.token_store.vocab_size

    @property
    def tokenizer(self) -> tokenizer.Tokenizer:
        return self.token_store.tokenizer

    @property
    def unknown_share(self) -> dict[str, float] | None:
        return self.token_store.unknown_share

    def for_run(self, config: Any) -> "Dataset":
        """The dataset with the sizes of a run. Raises ValueError, with the numbers, if the training
        text is smaller than one batch or the validation text has no window."""
        packs = rows_of(config.data) == "packed"
        dataset = replace(
            self,
            length=config.model.context_length,
            batch_size=config.train.batch_size,
            eval_sequences=config.eval.sequences,
            eval_batch_size=config.eval.batch_size,
            max_tokens=config.data.max_tokens,
            reads_on=config.model.get("carry_state", False),
            packed=PackedStore(self.token_store, config.model.context_length) if packs else None,
        )
        if packs and dataset.reads_on:
            raise ValueError(
                "data.rows='packed' puts whole documents into rows, which model.carry_state=True "
                "would read on from batch to batch; use windows, or carry_state=False"
            )
        if dataset.reads_on:
            loader.require_one_corpus(self.token_store)
        if packs:
            dataset.packed.require_rows(dataset.batch_size)
        else:
            loader.require_windows(self.token_store, dataset.batch_size, dataset.length)
        replace(dataset, reads_on=False).windows("validation")  # raises if it is too small
        return dataset

    def spec(self) -> dict[str, Field]:
        return _spec(self.length, self.packed is not None)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        chunk = self.batches(split, seed, step, 1, rows)
        return {name: array[0] for name, array in chunk.items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        if self.packed and split == "train":
            return self.packed.read_chunk(seed, step, count, self.batch_size, rows)
        read = loader.read_on_chunk if self.reads_on else loader.read_chunk
        sizes = count, self.batch_size, self.length
        chunk = read(self.token_store, seed, step, *sizes, rows, split)
        return own_documents(chunk, self.tokenizer.eod) if self.packed else chunk

    def examples(self, split: str) -> Iterator[loader.Batch]:
        batches = loader.read_on_eval if self.reads_on else loader.eval_batches
        sizes = self.eval_sequences, self.eval_batch_size, self.length
        found = batches(self.token_store, *sizes, split=split)
        if self.packed is None:
            return found
        return (own_documents(batch, self.tokenizer.eod) for batch in found)

    def epochs(self, steps: float) -> float:
        if self.packed:
            return self.packed.epochs(steps, self.batch_size)
        return loader.epochs_of_data(self.token_store, steps, self.batch_size, self.length)

    def save(self, workdir: Path) -> None:
        """Saves the tokenizer, so that sampling from the run does not need its text."""
        self.token_store.tokenizer.save(workdir / "tokenizer")

    def n_tokens(self, split: str) -> int:
        """Tokens of `texts`, including end-of-document tokens."""
        n_tokens = self.token_store.n_tokens[split]
        return min(n_tokens, self.max_tokens or n_tokens) if split == "train" else n_tokens

    def texts(self, split: str) -> list[np.ndarray]:
        """The tokens of a split, one int64 array per component: all, or the first `max_tokens` of
        the training split."""
        empty = np.empty(0, "<u4")  # a split may have no shards
        texts, left = [], self.n_tokens(split)
        for part in self.token_store.components:
            text = np.concatenate([empty, *part.splits[split].shards])[:left].astype(np.int64)
            texts.append(text)
            left -= len(text)
        return texts

    def windows(self, split: str) -> list[np.ndarray]:
        """Where each sequence of `examples` begins in `texts`, one array per component."""
        if not self.reads_on:
            return loader.fixed_starts(self.token_store, self.eval_sequences, self.length, split)
        batches = loader.read_on_starts(
            self.token_store, self.eval_sequences, self.eval_batch_size, self.length, split
        )
        return [np.concatenate([start_B[counts_B] for start_B, counts_B in batches])]
