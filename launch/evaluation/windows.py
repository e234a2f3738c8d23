"""Cuts texts into windows of a model's context, and windows into batches of equal length."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BATCH = 8192  # tokens of a batch
IN_ORDER = 16  # texts that are read side by side, window after window
SHORTER = (16, 4)  # windows are padded to 1/16 or 1/4 of the context where they are short


@dataclass(frozen=True)
class Window:
    """A part of text `number` from token `begin` on: inputs and targets [n]. Those before `fresh`
    were scored in an earlier window and give context."""

    number: int
    begin: int
    tokens: np.ndarray
    targets: np.ndarray
    fresh: int


def windows(number: int, text: np.ndarray, start: int, context: int, stride: int) -> list[Window]:
    """The windows of a text of tokens, whose first `start` tokens are no targets: at most `context`
    inputs each, beginning every `stride` tokens, until every target is scored."""
    found, scored, last = [], start - 1, len(text) - 1
    for begin in range(0, last, stride):
        end = min(begin + context, last)
        if end > scored:
            fresh = scored - begin
            inputs, targets = text[begin:end], text[begin + 1 : end + 1]
            found.append(Window(number, begin, inputs, targets, fresh))
            scored = end
    return found


def batches(
    texts: Iterable[tuple[int, np.ndarray]],
    start: int,
    context: int,
    stride: int,
    at_once: int = BATCH,
) -> Iterator[tuple[Sequence[Window], np.ndarray, np.ndarray]]:
    """(windows, inputs [B, T], targets [B, T]) of all texts; B T is at most `at_once`, or B is 1.
    Windows of similar length are batched together, so few lengths T occur; rows after the last
    window are zeros."""
    lengths = [context // part for part in SHORTER if context // part >= 32] + [context]
    waiting: dict[int, list[Window]] = {length: [] for length in lengths}
    for number, text in texts:
        for window in windows(number, text, start, context, stride):
            length = next(length for length in lengths if length >= len(window.tokens))
            waiting[length].append(window)
            if len(waiting[length]) == max(1, at_once // length):
                yield _batch(waiting[length], length, at_once)
                waiting[length] = []
    for length, left in waiting.items():
        if left:
            yield _batch(left, length, at_once)


def _batch(
    rows: Sequence[Window], length: int, at_once: int
) -> tuple[Sequence[Window], np.ndarray, np.ndarray]:
    count = max(1, at_once // length)
    tokens_BT, targets_BT = np.zeros((2, count, length), np.int32)
    for row, window in enumerate(rows):
        tokens_BT[row, : len(window.tokens)] = window.tokens
        targets_BT[row, : len(window.targets)] = window.targets
    return rows, tokens_BT, targets_BT


def in_order(
    texts: Iterator[tuple[int, np.ndarray]], start: int, context: int
) -> Iterator[tuple[list[tuple[int, Window]], np.ndarray, np.ndarray, np.ndarray]]:
    """([(row, window)], whether a text begins in each row [B], inputs [B, T], targets [B, T]).

    Each of IN_ORDER rows reads one text from window to window, in successive batches, and then the
    next text.
    """
    of_texts = (iter(windows(number, text, start, context, context)) for number, text in texts)
    rows: list[Iterator[Window]] = [iter(())] * IN_ORDER
    while True:
        found, begins_B = [], np.zeros(len(rows), bool)
        for row in range(len(rows)):
            window = next(rows[row], None)
            while window is None and (text := next(of_texts, None)) is not None:
                rows[row], begins_B[row] = text, True
                window = next(text, None)
            if window is not None:
                found.append((row, window))
        if not found:
            return
        tokens_BT, targets_BT = np.zeros((2, len(rows), context), np.int32)
        for row, window in found:
            tokens_BT[row, : len(window.tokens)] = window.tokens
            targets_BT[row, : len(window.targets)] = window.targets
        yield found, begins_B, tokens_BT, targets_BT
