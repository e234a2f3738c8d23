"""Texts of different lengths as padded batches."""

from collections.abc import Iterator, Sequence

import numpy as np

AT_ONCE = 32  # texts of a batch
UNIT = 32  # tokens: rows are padded to a multiple of it, so that few shapes are compiled


def batches(texts: Sequence[np.ndarray], padding: int, longest: int) -> Iterator[dict]:
    """Batches of AT_ONCE rows, in order: tokens, segments int32 [B, T] with T up to `longest`. Rows
    after the last text are empty."""
    for first in range(0, len(texts), AT_ONCE):
        part = texts[first : first + AT_ONCE]
        length = min(longest, -(-max(map(len, part)) // UNIT) * UNIT)
        tokens_BT = np.full((AT_ONCE, length), padding, np.int32)
        segments_BT = np.zeros_like(tokens_BT)
        for row, text in enumerate(part):
            tokens_BT[row, : len(text)], segments_BT[row, : len(text)] = text, 1
        yield {"tokens": tokens_BT, "segments": segments_BT}


def require_room(texts: Sequence[np.ndarray], names: Sequence[str], longest: int) -> None:
    """ValueError that names the first text that is longer than the model's context."""
    for text, name in zip(texts, names, strict=True):
        if len(text) > longest:
            raise ValueError(
                f"{name} has {len(text)} tokens with its marks, but model.context_length={longest}"
                "; shorten it"
            )
