"""The live view of a sweep: a table on a terminal, plain lines elsewhere."""

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import rich.console
import rich.live
import rich.progress_bar
import rich.table

from launch.amounts import amount, clock
from launch.runners.tasks import Event
from launch.sweep.expand import Planned

PLAIN_EVERY = 30.0  # seconds between summary lines where there is no terminal
LIVE_EVERY = 0.5
_TAIL = 4096  # bytes of metrics.jsonl that hold at least its last row
_SHOWN = 8  # finished trials under the running ones


class Live:
    """Shows the trials while they run: a table that is redrawn, or a plain line now and then."""

    def __init__(self, workdir: Path, trials: Sequence[Planned], states: Mapping[str, str]):
        self.workdir = workdir
        self.trials = {planned.id: planned for planned in trials}
        self.states = {planned.id: states.get(planned.id, "waiting") for planned in trials}
        self.to_come = 0  # trials that a search has not yet asked for
        self.notes: dict[str, str] = {}
        self.finished: list[str] = []
        self.console = rich.console.Console(stderr=True)
        self.live = rich.live.Live(console=self.console, auto_refresh=False, transient=True)
        self.began = time.monotonic()
        self.skipped = sum(self.trials[key].cost for key in states if key in self.trials)
        self.shown = self.began

    def __enter__(self) -> "Live":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.console.is_terminal:
            self.live.stop()
        self.console.print(self.summary(), highlight=False)

    def add(self, planned: Planned) -> None:
        """Shows a trial that was planned while the sweep runs."""
        self.trials.setdefault(planned.id, planned)
        self.states.setdefault(planned.id, "waiting")

    def event(self, event: Event, state: str) -> None:
        """Notes what happened to a trial, which is now in `state`."""
        self.states[event.key] = state
        self.notes[event.key] = f"attempt {event.attempt}" if event.attempt > 1 else ""
        if event.kind == "finished":
            self.finished.append(event.key)
        if event.kind == "retried":
            self.say(f"{event.key}: {event.reason} in attempt {event.attempt}; trying again")
        elif not self.console.is_terminal and event.kind == "finished":
            done = sum(state not in NOT_ENDED for state in self.states.values())
            loss = f", loss {shown}" if (shown := self._loss(event.key)) else ""
            of = len(self.states) + self.to_come
            self.say(f"[{done}/{of}] {event.key}: {state}{loss}")

    def say(self, line: str) -> None:
        """Prints a line that stays, above the table."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def tick(self) -> None:
        """Shows the present state, at most once in LIVE_EVERY or PLAIN_EVERY seconds."""
        every = LIVE_EVERY if self.console.is_terminal else PLAIN_EVERY
        if time.monotonic() - self.shown < every:
            return
        self.shown = time.monotonic()
        if self.console.is_terminal:
            self.live.update(self._render(), refresh=True)
        else:
            self.say(self.summary())

    def summary(self) -> str:
        """Counts by state, elapsed time and time left, in one line."""
        states = list(self.states.values())
        counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
        elapsed = time.monotonic() - self.began
        rows = {key: self._row(key) for key, state in self.states.items() if state == "running"}
        fractions = {key: self._fraction(key, row) for key, row in rows.items()}
        ended = {key: 1.0 for key, state in self.states.items() if state not in NOT_ENDED}
        flops = sum(self.trials[key].cost * f for key, f in (fractions | ended).items())
        total = sum(planned.cost for planned in self.trials.values())
        total *= 1 + self.to_come / max(1, len(self.trials))
        line = f"{', '.join(counts)}; {clock(elapsed)} elapsed"
        if not self.finished or flops >= total:  # until a first trial ends, start-up misleads
            return line
        return f"{line}, about {clock(elapsed * (total - flops) / (flops - self.skipped))} left"

    def _render(self) -> rich.table.Table:
        table = columns("trial", "params", "tokens", "progress", "loss", "tokens/s", "")
        table.title = self.summary()
        for key in [key for key, state in self.states.items() if state == "running"]:
            row = self._row(key)
            bar = rich.progress_bar.ProgressBar(1.0, self._fraction(key, row), width=20)
            self._add(table, key, bar, row, self.notes.get(key, ""))
        for key in reversed(self.finished[-_SHOWN:]):
            self._add(table, key, self.states[key], self._row(key), self.notes.get(key, ""))
        return table

    def _add(self, table: rich.table.Table, key: str, progress, row: dict, note: str) -> None:
        planned = self.trials[key]
        speed = f"{row['tokens_per_second']:,.0f}" if row.get("tokens_per_second") else ""
        size = amount(planned.params) if planned.params else "counted"
        tokens = amount(planned.about["tokens"])
        table.add_row(key, size, tokens, progress, self._loss(key), speed, note)

    def _row(self, key: str) -> dict:
        return last_row(self.workdir / key / "metrics.jsonl")

    def _fraction(self, key: str, row: dict) -> float:
        planned = self.trials[key]
        done = max(0, row.get("step", 0) - planned.branched_at)
        return min(1.0, done / (planned.about["steps"] - planned.branched_at))

    def _loss(self, key: str) -> str:
        row = self._row(key)
        loss = row.get("eval_loss", row.get("loss"))
        return "" if loss is None else f"{loss:.4f}"


NOT_ENDED = ("waiting", "in use", "running")  # in use: another process trains it
STATES = (*NOT_ENDED, "done", "diverged", "failed")


def last_row(file: Path) -> dict:
    """The last whole row of a metrics.jsonl that is being written; {} if there is none."""
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
            lines = stream.read().split(b"\n")
    except FileNotFoundError:
        return {}
    merged: dict = {}
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, RecursionError):  # cut off, or not a row
            merged |= json.loads(line)
    return merged


def columns(*titles: str) -> rich.table.Table:
    """An empty table with these columns; numbers are aligned right."""
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    numbers = ("params", "tokens", "steps", "FLOPs", "est. time", "loss", "tokens/s")
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left", no_wrap=True)
    return table
