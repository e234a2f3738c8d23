"""The kind of data `spans`: text with spans cut out, which an encoder–decoder fills in (T5).

Raffel et al. 2020, section 3.1.4. With the text a b c d e f g, of which c and f g are cut, and the
end token `.`:

    source   a b X d e Y .      tokens   . X c Y f g
                                targets  X c Y f g .

X, Y, … are sentinels, whose ids follow those of the tokenizer. As in T5's code
(random_spans_noise_mask of seqio), a row begins with a piece that stays and ends with one that is
cut, all pieces have random lengths, and all rows have equally many: a row of source_length tokens
comes from the same number of tokens of text. The end token ends both sides and begins the decoder's
input.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data import loader, store
from data.fields import Field
from data.framed.text_rows import TextRows, text_rows
from data.kinds import text
from data.order import noise
from data.tokenizer import Tokenizer

FIELDS = ("source", "source_segments", "tokens", "targets", "weights", "segments")
PREDICTS = "corrupted spans"
TASK = ("data.corruption", "data.mean_span")
CUT, KEPT = 0, 1  # what a random number is for
VALIDATION = -1  # in place of a seed


@dataclass(frozen=True)
class Sizes:
    """How many tokens of a row are cut, and in how many spans."""

    text: int  # tokens of a row before it is cut
    cut: int
    spans: int

    @property
    def source(self) -> int:
        return self.text - self.cut + self.spans + 1

    @property
    def target(self) -> int:
        return self.cut + self.spans + 1


def sizes_of(n: int, corruption: float, mean_span: float) -> Sizes:
    """Of `n` tokens, the share `corruption` is cut, in spans of `mean_span` tokens on average."""
    cut = min(max(round(n * corruption), 1), n - 1)
    return Sizes(n, cut, min(max(round(cut / mean_span), 1), cut, n - cut))


def fitting(config: Any) -> Sizes:
    """The Sizes of the longest text whose source fits. ValueError where the model's lengths or
    data.sentinels are too small for it."""
    data, model = config.data, config.model
    if "source_length" not in model:
        raise ValueError(
            f"data.kind='spans' needs model.source_length, which model.family={model.family!r} "
            "does not have; use model.family=encoder_decoder"
        )
    longest = int(model.source_length / (1 - data.corruption)) + 2
    of = (sizes_of(n, data.corruption, data.mean_span) for n in range(longest, 1, -1))
    sizes = next((one for one in of if one.source <= model.source_length), None)
    if sizes is None:
        raise ValueError(
            f"model.source_length={model.source_length} has no room for a token, a sentinel and "
            "the end token; use 3 or more"
        )
    if sizes.target > model.context_length:
        raise ValueError(
            f"model.context_length={model.context_length} is too small: of the {sizes.text} tokens "
            f"that model.source_length={model.source_length} holds, {sizes.cut} are cut in "
            f"{sizes.spans} spans, which makes {sizes.target} target tokens; use {sizes.target}"
        )
    if sizes.spans > data.sentinels:
        raise ValueError(
            f"data.sentinels={data.sentinels}, but model.source_length={model.source_length} has "
            f"{sizes.spans} spans in a row; use {sizes.spans} or more"
        )
    return sizes


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: source, source_segments int32 [S]; tokens, targets, segments int32 [T] and
    weights float32 [T]."""
    fitting(config)
    return _spec(config.model.source_length, config.model.context_length)


def _spec(source: int, target: int) -> dict[str, Field]:
    lengths = [source, source, *[target] * 4]
    return {
        name: Field((length,), np.float32 if name == "weights" else np.int32, ("seq",))
        for name, length in zip(FIELDS, lengths, strict=True)
    }


def tokens(config: Any) -> int:
    """Target tokens per row, padding included."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Tokens of an existing tokenizer and sentinels; ValueError for one that is trained first."""
    return text.vocab_size(data) + data.sentinels


def prepare(data: Any, progress: bool = True) -> "Dataset":
    """The text of a `data` section as tokens; raises what `store.prepare` raises."""
    return Dataset(store.prepare(data, progress=progress), data.sentinels)


@dataclass(frozen=True)
class Dataset:
    """A token store whose rows are cut. `for_run` sets the sizes."""

    token_store: store.TokenStore
    sentinels: int
    sizes: Sizes = Sizes(0, 0, 0)
    source: int = 0  # tokens of a row, padded
    target: int = 0
    rows: TextRows | None = None

    @property
    def hash(self) -> str:
        return self.token_store.hash

    @property
    def vocab_size(self) -> int:
        return self.token_store.vocab_size + self.sentinels

    @property
    def tokenizer(self) -> Tokenizer:
        return self.token_store.tokenizer

    def for_run(self, config: Any) -> "Dataset":
        """The dataset with the sizes of a run. Raises ValueError, with the numbers, for lengths
        that do not fit, for too little training text, and without a validation window."""
        sizes, model = fitting(config), config.model
        rows = text_rows(self.token_store, config, sizes.text)
        lengths = {"source": model.source_length, "target": model.context_length}
        return replace(self, sizes=sizes, **lengths, rows=rows)

    def spec(self) -> dict[str, Field]:
        return _spec(self.source, self.target)

    def batch(
        self, split: str, seed: int, step: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        chunk = self.batches(split, seed, step, 1, rows)
        return {name: array[0] for name, array in chunk.items()}

    def batches(
        self, split: str, seed: int, step: int, count: int, rows: loader.Rows | None = None
    ) -> loader.Batch:
        return self.rows.batches(self.cut, split, seed, step, count, rows)

    def examples(self, split: str) -> Iterator[loader.Batch]:
        for batch, fills_B in self.rows.examples(self.cut, split, VALIDATION):
            batch["weights"][fills_B] = 0
            yield batch

    def cut(self, text_RN: np.ndarray, seed: int, row_R: np.ndarray) -> loader.Batch:
        """The fields of rows of text with the numbers `row`."""
        tokenizer, sizes, R = self.tokenizer, self.sizes, len(text_RN)
        is_cut_RN = masks(sizes, seed, row_R)
        begins_RN = is_cut_RN & ~np.pad(is_cut_RN, ((0, 0), (1, 0)))[:, :-1]
        sentinel_RN = tokenizer.vocab_size + np.cumsum(begins_RN, axis=1) - 1
        end_R1 = np.full((R, 1), tokenizer.eod)
        source = np.where(begins_RN, sentinel_RN, text_RN)[begins_RN | ~is_cut_RN].reshape(R, -1)
        both_RN2 = np.stack([sentinel_RN, text_RN], axis=-1)
        target = both_RN2[np.stack([begins_RN, is_cut_RN], axis=-1)].reshape(R, -1)
        source, used_S = _padded(np.hstack([source, end_R1]), self.source)
        targets, used_T = _padded(np.hstack([target, end_R1]), self.target)
        tokens, _ = _padded(np.hstack([end_R1, target]), self.target)
        return {
            "source": source,
            "source_segments": np.tile(used_S.astype(np.int32), (R, 1)),
            "tokens": tokens,
            "targets": targets,
            "weights": np.tile(used_T.astype(np.float32), (R, 1)),
            "segments": np.tile(used_T.astype(np.int32), (R, 1)),
        }

    def epochs(self, steps: float) -> float:
        return self.rows.epochs(steps)

    def save(self, workdir: Path) -> None:
        self.tokenizer.save(workdir / "tokenizer")


def _padded(ids: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids [R, n] as int32 [R, length], and which of the places are used [length]."""
    used = np.arange(length) < ids.shape[1]
    return np.pad(ids, ((0, 0), (0, length - ids.shape[1]))).astype(np.int32), used


def masks(sizes: Sizes, seed: int, row_R: np.ndarray) -> np.ndarray:
    """Which tokens of the rows with these numbers are cut, bool [R, text]: kept and cut pieces by
    turns."""
    lengths = np.empty((len(row_R), 2 * sizes.spans), np.int64)
    lengths[:, 0::2] = _pieces(sizes.text - sizes.cut, sizes.spans, row_R, seed, KEPT)
    lengths[:, 1::2] = _pieces(sizes.cut, sizes.spans, row_R, seed, CUT)
    turns = np.zeros((len(row_R), sizes.text + 1), np.int64)
    np.put_along_axis(turns, lengths.cumsum(1), 1, axis=1)
    return turns[:, :-1].cumsum(1) % 2 == 1


def _pieces(items: int, pieces: int, row_R: np.ndarray, *key: int) -> np.ndarray:
    """Lengths, 1 or more, of pieces that add up to `items` [R, pieces]; all lists of lengths are
    equally likely."""
    ends = np.argsort(noise(row_R, items - 1, *key), axis=1)[:, : pieces - 1] + 1
    whole = np.full((len(row_R), 1), items)
    return np.diff(np.hstack([0 * whole, np.sort(ends, axis=1), whole]), axis=1)
