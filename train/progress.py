"""This file shows how far training is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A context that shows the step and the newest row of metrics."""

    SECONDS_BETWEEN_LINES = 10

    def __init__(self, name: str, total: int):
        self.name, self.total, self._last = name, total, time.monotonic()
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

    def update(self, step: int, row: dict) -> None:
        if self._bar:
            self._bar.update(self._task, completed=step, text=describe(row))
        elif time.monotonic() - self._last > self.SECONDS_BETWEEN_LINES or step == self.total:
            self._last = time.monotonic()
            print(f"{self.name}: step {step}/{self.total} {describe(row)}", file=sys.stderr)


def describe(row: dict) -> str:
    """The newest numbers in a few words."""
    parts = [f"loss {row['loss']:.4f}"] if "loss" in row else []
    if "eval_loss" in row:
        bits = f" ({row['bits_per_byte']:.4f} bits/byte)" if "bits_per_byte" in row else ""
        parts.append(f"eval {row['eval_loss']:.4f}{bits}")
    if "tokens_per_second" in row:
        parts.append(f"{row['tokens_per_second']:,.0f} tokens/s")
        parts.append(f"{row['model_flops_per_second'] / 1e9:,.1f} GFLOP/s")
    if row.get("mfu"):
        parts.append(f"MFU {row['mfu']:.1%}")
    return ", ".join(parts)
