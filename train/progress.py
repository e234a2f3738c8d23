"""Shows training progress: a bar on a terminal, otherwise a line every ten seconds."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from train.policy.throughput import PARTS


class Progress:
    """A context manager that shows the step, the time left and the newest row of metrics."""

    SECONDS_BETWEEN_LINES = 10

    def __init__(self, name: str, total: int):
        self.name, self.total, self._last = name, total, time.monotonic()
        self._first: tuple[int, float] | None = None  # step and time of the first update
        self._shown: dict[str, Any] = {}
        console = Console(stderr=True)
        self._bar = None
        if console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            text = (TextColumn("{task.description}"), *columns, TextColumn("{task.fields[text]}"))
            self._bar = Bar(*text, console=console)
            self._task = self._bar.add_task(name, total=total, text="compiling")

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, step: int, row: Mapping[str, Any]) -> None:
        """Shows `step` and `row`, the newest value of every column. A line shows only the values
        that changed since the previous line."""
        now = time.monotonic()
        self._first = self._first or (step, now)
        if self._bar:
            self._bar.update(self._task, completed=step, text=describe(row))
        elif now - self._last > self.SECONDS_BETWEEN_LINES or step == self.total:
            self._last = now
            new = {key: value for key, value in row.items() if self._shown.get(key) != value}
            self._shown = dict(row)
            parts = [f"step {step}/{self.total}", self._left(step, now), describe(new)]
            print(f"{self.name}: {', '.join(filter(None, parts))}", file=sys.stderr, flush=True)

    def _left(self, step: int, now: float) -> str:
        """The time left, from the rate since the first update; "" if the rate is unknown."""
        first, begun = self._first
        if step in (first, self.total):
            return ""
        minutes, seconds = divmod(round((self.total - step) * (now - begun) / (step - first)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left"


def describe(row: Mapping[str, Any]) -> str:
    """The main numbers of a row as short text."""
    parts = [f"loss {row['loss']:.4f}"] if "loss" in row else []
    parts += [f"{name} {row[name]:.3f}" for name in ("reward", "kl") if name in row]
    if "eval_loss" in row:
        bits = f" ({row['bits_per_byte']:.4f} bits/byte)" if "bits_per_byte" in row else ""
        parts.append(f"eval {row['eval_loss']:.4f}{bits}")
    if "tokens_per_second" in row:
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
    for name in (f"{part}_tokens_per_second" for part in PARTS):
        if name in row:
            parts.append(f"{name.partition('_')[0]}s {row[name]:,.0f} tokens/s")
    if "model_flops_per_second" in row:
        parts.append(f"{row['model_flops_per_second'] / 1e9:,.1f} GFLOP/s")
    if row.get("mfu"):
        parts.append(f"MFU {row['mfu']:.1%}")
    return ", ".join(parts)
