"""This file shows a sweep: the table of a dry run, and the live table while trials run."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import rich.console
import rich.live
import rich.progress_bar
import rich.table

from launch.runners.local import Event
from launch.sweep.expand import CONVENTION, Planned

PLAIN_EVERY = 30.0  # seconds between summary lines where there is no terminal
LIVE_EVERY = 0.5
_TAIL = 4096  # bytes of metrics.jsonl that hold at least its last row
MOST_LISTED = 5  # overrides of a trial in the table of a dry run
_SHOWN = 8  # finished trials under the running ones


def dry_run(trials: Sequence[Planned], states: Mapping[str, str], times: Mapping[str, float]):
    """The trials with parameters, tokens, FLOPs and estimated time, as a rich table."""
    table = _table("trial", "params", "tokens", "steps", "FLOPs", "est. time", "", "overrides")
    for planned in trials:
        about = planned.about
        notes = ["held out"] if planned.holdout else []
        if planned.trunk:
            notes.append(f"from step {planned.branched_at:,} of {planned.trunk}")
        table.add_row(
            planned.id,
            si(planned.params),
            si(about["tokens"]),
            f"{about['steps']:,}",
            f"{about['flops'][CONVENTION]:.2e}",
            states.get(planned.id) or clock(times[planned.id]),
            ", ".join(notes),
            listed(planned.overrides),
        )
    return table


def listed(overrides: Mapping[str, object]) -> str:
    """The first overrides of a trial, and how many more there are: all are in its config.json."""
    texts = [f"{key}={value}" for key, value in overrides.items()]
    left = len(texts) - MOST_LISTED
    return ", ".join(texts[:MOST_LISTED]) + (f" and {left} more" if left > 0 else "")


class Live:
    """What a person sees while trials run: a table that moves, or a plain line now and then."""

    def __init__(self, workdir: Path, trials: Sequence[Planned], states: Mapping[str, str]):
        self.workdir = workdir
        self.trials = {planned.id: planned for planned in trials}
        self.states = {planned.id: states.get(planned.id, "waiting") for planned in trials}
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

    def event(self, event: Event, state: str) -> None:
        """Notes what happened to a trial, which is now in `state`."""
        self.states[event.key] = state
        self.notes[event.key] = f"attempt {event.attempt}" if event.attempt > 1 else ""
        if event.kind == "finished":
            self.finished.append(event.key)
        if event.kind == "retried":
            self.say(f"{event.key}: {event.reason} in attempt {event.attempt}; trying again")
        elif not self.console.is_terminal and event.kind == "finished":
            done = sum(state not in ("waiting", "running") for state in self.states.values())
            self.say(f"[{done}/{len(self.states)}] {event.key}: {state} {self._loss(event.key)}")

    def say(self, line: str) -> None:
        """Prints a line that stays, above the table."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def tick(self) -> None:
        """Shows the present state, unless it was shown a moment ago."""
        every = LIVE_EVERY if self.console.is_terminal else PLAIN_EVERY
        if time.monotonic() - self.shown < every:
            return
        self.shown = time.monotonic()
        if self.console.is_terminal:
            self.live.update(self._render(), refresh=True)
        else:
            self.say(self.summary())

    def summary(self) -> str:
        """Counts by state, time gone and time left, in one line."""
        states = list(self.states.values())
        counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
        elapsed = time.monotonic() - self.began
        rows = {key: self._row(key) for key, state in self.states.items() if state == "running"}
        fractions = {key: self._fraction(key, row) for key, row in rows.items()}
        ended = {key: 1.0 for key, state in self.states.items() if state not in STATES[:2]}
        flops = sum(self.trials[key].cost * f for key, f in (fractions | ended).items())
        total = sum(planned.cost for planned in self.trials.values())
        gone = flops - self.skipped
        line = f"{', '.join(counts)}; {clock(elapsed)} gone"
        if not self.finished or flops >= total:  # before a first trial has ended, start-up misleads
            return line
        return f"{line}, about {clock(elapsed * (total - flops) / gone)} left"

    def _render(self) -> rich.table.Table:
        table = _table("trial", "params", "tokens", "progress", "loss", "tokens/s", "")
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
        size, tokens = si(planned.params), si(planned.about["tokens"])
        table.add_row(key, size, tokens, progress, self._loss(key), speed, note)

    def _row(self, key: str) -> dict:
        return last_row(self.workdir / key / "metrics.jsonl")

    def _fraction(self, key: str, row: dict) -> float:
        planned = self.trials[key]
        gone = max(0, row.get("step", 0) - planned.branched_at)
        return min(1.0, gone / (planned.about["steps"] - planned.branched_at))

    def _loss(self, key: str) -> str:
        row = self._row(key)
        loss = row.get("eval_loss", row.get("loss"))
        return "" if loss is None else f"{loss:.4f}"


STATES = ("waiting", "running", "done", "diverged", "failed")


def last_row(file: Path) -> dict:
    """The last whole row of a metrics.jsonl that may be being written; {} if there is none."""
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
            lines = stream.read().split(b"\n")
    except FileNotFoundError:
        return {}
    merged: dict = {}
    for line in lines:
        try:
            merged |= json.loads(line)
        except ValueError:  # cut at the start of the tail, or not yet wholly written
            continue
    return merged


def si(number: float) -> str:
    """1234567 as '1.23M'."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _table(*columns: str) -> rich.table.Table:
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    numbers = ("params", "tokens", "steps", "FLOPs", "est. time", "loss", "tokens/s")
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
    return table
