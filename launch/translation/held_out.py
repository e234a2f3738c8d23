"""The validation pairs of a run, as text."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from data.kinds import KINDS
from launch.files import read_json


def held_out(run: Path) -> tuple[list[str], list[str]]:
    """(sources, targets) of the validation pairs of a run's data, in order, as its tokenizer spells
    them. ValueError, in one line, if the data cannot be read or have changed."""
    section = (read_json(run / "config.json") or {}).get("data", {})
    kind, data = section.get("kind", "text"), ConfigDict(section)
    if kind not in ("pairs", "joined_pairs"):
        raise ValueError(f"run={run} has data.kind={kind!r}, which has no validation pairs")
    store = KINDS[kind].prepare(data).store
    if store.hash != data.hash:
        raise ValueError(
            f"data.corpora={store.name!r} has changed since run={run} was trained; give --file and "
            "--references"
        )
    pairs = store.pairs["validation"]
    sides = []
    for side in (0, 1):
        rows = zip(pairs.begins_P2[:, side], pairs.lengths_P2[:, side], strict=True)
        found = [pairs.take(np.arange(begin, begin + length)) for begin, length in rows]
        sides.append([store.tokenizer.decode(tokens) for tokens in found])
    return sides[0], sides[1]
