"""The kind of data `pairs`: a source sentence and its translation, for encoder–decoders.

A row of `pairs`, padded, with the end token `.` and a source of three tokens:

    source           a b c . . .        tokens    . x y . .
    source_segments  1 1 1 1 0 0        targets   x y . . .
                                        weights   1 1 1 0 0        segments  1 1 1 0 0

The decoder's input begins with the end token, which also ends both sides (as in fairseq, Ott et al.
2019). With data.rows=packed a row holds several pairs: segments 1, 2, … say which token belongs to
which, and source_positions and positions count from 0 in each. A target attends only to the source
of its own segment.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from data.fields import Field
from data.kinds import text
from data.paired import pair_store
from data.paired.packing import ranges
from data.paired.pair_dataset import ROWS, TOO_LONG, Layout, PairDataset, Placed
from data.paired.pair_store import Pairs

FIELDS = ("source", "source_segments", "tokens", "targets", "weights", "segments")
PREDICTS = "the target sentence"


@dataclass(frozen=True)
class Config:
    # FILE.tsv | FILE.jsonl | SOURCES,TARGETS: two files, line by line | synthetic_pairs[:KEY=…] |
    # messages:PACKAGE:LANGUAGE
    corpora: tuple[str, ...] = ("synthetic_pairs",)
    source_key: str = "source"  # field of a jsonl row that holds the source
    target_key: str = "target"
    tokenizer: str = "words"  # of both sides; one that is trained is trained on both
    vocab_size: int = 0  # tokens to train bpe or unigram with
    validation: float = 0.05  # share of the pairs, chosen by a hash of their content
    rows: str = "padded"  # padded: one pair a row | packed: as many as fit
    # Pairs longer than the model's lengths: refuse | drop | truncate
    too_long: str = "refuse"
    cache: str = "cache"  # folder of the token shards
    hash: str = ""  # of the dataset, filled in by `resolve`; give it to insist on one


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: source, source_segments int32 [S]; tokens, targets, segments int32 [T] and
    weights float32 [T]; if rows are packed, source_positions [S] and positions [T]."""
    require_choices(config.data)
    sizes = _capacity(config)
    names = {"source": ("source", "source_segments"), "target": FIELDS[2:]}
    if config.data.rows == "packed":
        names["source"] += ("source_positions",)
        names["target"] += ("positions",)
    return {
        name: Field((size,), np.float32 if name == "weights" else np.int32, ("seq",))
        for side, size in zip(names.values(), sizes.values(), strict=True)
        for name in side
    }


def tokens(config: Any) -> int:
    """Target tokens per row: the positions that the loss is averaged over, padding included."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Size of an existing tokenizer; ValueError for one that is trained on the pairs first."""
    return text.vocab_size(data)


def prepare(data: Any, progress: bool = True) -> PairDataset:
    """The pairs of a `data` section as tokens; raises what `pair_store.prepare` raises."""
    require_choices(data)
    return PairDataset(pair_store.prepare(data, progress=progress), LAYOUT)


def require_choices(data: Any) -> None:
    """ValueError for an unknown arrangement of rows, or treatment of long pairs."""
    for key, known in (("rows", ROWS), ("too_long", TOO_LONG)):
        if data[key] not in known:
            raise ValueError(f"data.{key}={data[key]!r} is unknown; use one of {', '.join(known)}")


def _capacity(config: Any) -> dict[str, int]:
    if "source_length" not in config.model:
        raise ValueError(
            f"data.kind='pairs' needs model.source_length, which model.family="
            f"{config.model.family!r} does not have; use data.kind=joined_pairs"
        )
    capacity = {key: config.model[key] for key in ("source_length", "context_length")}
    for key, most in capacity.items():
        if most < 2:
            raise ValueError(
                f"model.{key}={most} has no room for a token and the end token; use 2 or more"
            )
    return capacity


def _room(lengths_P2: np.ndarray) -> np.ndarray:
    return lengths_P2 + 1  # the end token


def _cut(lengths_P2: np.ndarray, capacity: tuple[int, ...]) -> np.ndarray:
    return np.minimum(lengths_P2, np.array(capacity) - 1)


def _fill(batch: dict[str, np.ndarray], pairs: Pairs, placed: Placed) -> None:
    """Every row is filled with end tokens, so that only what stands before them is written."""
    for side, names in enumerate((("source",), ("targets", "tokens"))):
        lengths_p = placed.lengths_p2[:, side]
        first_p = starts(lengths_p + 1, placed)
        within_n = ranges(lengths_p)
        at_n = np.repeat(first_p, lengths_p) + within_n
        row_n = np.repeat(placed.row_p, lengths_p)
        found_n = pairs.take(np.repeat(placed.begins_p2[:, side], lengths_p) + within_n)
        for shift, name in enumerate(names):  # the decoder reads what it wrote, one place later
            batch[name][row_n, at_n + shift] = found_n
        prefix = ("source_", "")[side]
        mark(batch, prefix, first_p, lengths_p + 1, placed)
    batch["weights"][:] = batch["segments"] > 0


def starts(room_p: np.ndarray, placed: Placed) -> np.ndarray:
    """Where each pair begins in its row, if each takes `room`."""
    before_p = np.cumsum(room_p) - room_p
    firsts_p = np.flatnonzero(placed.place_p == 0)
    return before_p - np.repeat(before_p[firsts_p], np.diff([*firsts_p, len(room_p)]))


def mark(
    batch: dict[str, np.ndarray],
    prefix: str,
    first_p: np.ndarray,
    room_p: np.ndarray,
    placed: Placed,
) -> None:
    """Writes the segments and, if the batch has them, the positions of pairs."""
    row_n, within_n = np.repeat(placed.row_p, room_p), ranges(room_p)
    at_n = np.repeat(first_p, room_p) + within_n
    if f"{prefix}segments" in batch:
        batch[f"{prefix}segments"][row_n, at_n] = np.repeat(placed.place_p + 1, room_p)
    if f"{prefix}positions" in batch:
        batch[f"{prefix}positions"][row_n, at_n] = within_n


LAYOUT = Layout(_capacity, _room, _cut, spec, _fill)
