"""The kind of data `joined_pairs`: source and target in one row, for decoders.

    tokens    a b c . x y . .           the source, an end token, the target
    targets   b c . x y . . .
    weights   0 0 0 1 1 1 0 0           only the target counts, as with the kind `pairs`

With data.rows=packed a row holds several pairs, with segments 1, 2, … and positions from 0 in each.
"""

from typing import Any

import numpy as np

from data.fields import Field
from data.kinds import pairs as separate
from data.paired import pair_store
from data.paired.packing import ranges
from data.paired.pair_dataset import Layout, PairDataset, Placed
from data.paired.pair_store import Pairs

FIELDS = ("tokens", "targets", "weights")
PREDICTS, Config = separate.PREDICTS, separate.Config
tokens, vocab_size = separate.tokens, separate.vocab_size


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: tokens, targets int32 [T] and weights float32 [T]; if rows are packed,
    segments and positions int32 [T]."""
    separate.require_choices(config.data)
    names = (*FIELDS, "segments", "positions") if config.data.rows == "packed" else FIELDS
    dtype = {"weights": np.float32}
    length = config.model.context_length
    return {name: Field((length,), dtype.get(name, np.int32), ("seq",)) for name in names}


def prepare(data: Any, progress: bool = True) -> PairDataset:
    """The pairs of a `data` section as tokens; raises what `pair_store.prepare` raises."""
    separate.require_choices(data)
    return PairDataset(pair_store.prepare(data, progress=progress), LAYOUT)


def _capacity(config: Any) -> dict[str, int]:
    if (most := config.model.context_length) < 3:
        raise ValueError(
            f"model.context_length={most} has no room for a source, the end token and a target; "
            "use 3 or more"
        )
    return {"context_length": most}


def _room(lengths_P2: np.ndarray) -> np.ndarray:
    return lengths_P2.sum(1, keepdims=True) + 1  # the end between them; the last is only a target


def _cut(lengths_P2: np.ndarray, capacity: tuple[int, ...]) -> np.ndarray:
    """The longer side is cut first."""
    source_P, target_P = lengths_P2.T
    left = capacity[0] - 1
    source_P = np.minimum(source_P, left - np.minimum(target_P, left // 2))
    return np.stack([source_P, np.minimum(target_P, left - source_P)], 1)


def _fill(batch: dict[str, np.ndarray], pairs: Pairs, placed: Placed) -> None:
    room_p = _room(placed.lengths_p2)[:, 0]
    first_p = separate.starts(room_p, placed)
    source_p, target_p = placed.lengths_p2.T
    for side, lengths_p in enumerate((source_p, target_p)):
        within_n = ranges(lengths_p)
        at_n = np.repeat(first_p + side * (source_p + 1), lengths_p) + within_n
        row_n = np.repeat(placed.row_p, lengths_p)
        found_n = pairs.take(np.repeat(placed.begins_p2[:, side], lengths_p) + within_n)
        batch["tokens"][row_n, at_n] = found_n
        before_n = within_n > 0 if side == 0 else np.ones_like(within_n, bool)
        batch["targets"][row_n[before_n], at_n[before_n] - 1] = found_n[before_n]
    separate.mark(batch, "", first_p, room_p, placed)
    counted_n = np.repeat(first_p + source_p, target_p + 1) + ranges(target_p + 1)
    batch["weights"][np.repeat(placed.row_p, target_p + 1), counted_n] = 1


LAYOUT = Layout(_capacity, _room, _cut, spec, _fill)
