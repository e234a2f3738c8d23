"""The live view of a sweep: a table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.live
import rich.progress_bar
import rich.table
import rich.text

from launch.amounts import amount, clock
from launch.files import AGAIN, read_json
from launch.runners.tasks import Event
from launch.screen.fitted_table import Column, cell, fitted, left_out
from launch.screen.sparkline import sparkline
from launch.sweep.expand import Planned
from launch.sweep.followed import Followed
from scaling.ranking.filters import ordered
from scaling.ranking.trials import short_names, spelled, varied_keys

PLAIN_EVERY = 30.0  # seconds between summary lines where there is no terminal
LIVE_EVERY, SHARE = 0.5, 0.03
MOST_ROWS = 40  # of the table that stays at the end
AROUND = 5  # lines of the screen that are not rows: title, heading, notes
FACTS = ("trial", "status", "loss", "params", "tokens")  # what --sort takes besides varied keys


class Live:
    """Shows the trials while they run: a table that is redrawn, or a plain line now and then. The
    table stays when the sweep ends, all trials in it.

    Only the files of running trials are read again; what has ended is read once, when it is shown.
    """

    def __init__(
        self,
        workdir: Path,
        trials: Sequence[Planned],
        states: Mapping[str, str],
        sort: str = "",
        searched: Sequence[str] = (),
    ):
        """`sort` names a column, descending after a '-'; `searched` are keys that may become
        columns. ValueError, with the nearest name, for an unknown one."""
        self.workdir, self.sort, self.searched = workdir, sort, searched
        self.trials = {planned.id: planned for planned in trials}
        self.states = {planned.id: states.get(planned.id, "waiting") for planned in trials}
        self.to_come = 0  # trials that a search has not yet asked for
        self._describe()
        ordered([], sort or "loss", self.known)
        self.notes: dict[str, str] = {}
        self.finished: list[str] = []
        self.followed: dict[str, Followed] = {}
        self.results: dict[str, Mapping[str, Any]] = {}
        self.console = rich.console.Console(stderr=True)
        self.live = rich.live.Live(console=self.console, auto_refresh=False, transient=True)
        self.began = time.monotonic()
        self.skipped = sum(self.costs[key] for key in states if key in self.costs)
        self.shown, self.took = self.began, 0.0  # the last tick and its seconds

    def __enter__(self) -> "Live":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_) -> None:
        if self.console.is_terminal:
            self.live.stop()
            started = [key for key, state in self.states.items() if state != "waiting"]
            self.console.print(self._table(self._sorted(started, self.sort or "loss"), MOST_ROWS))
        self.console.print(self.summary(), highlight=False)

    def add(self, planned: Planned) -> None:
        """Shows a trial that was planned while the sweep runs."""
        if planned.id not in self.trials:
            self.trials[planned.id] = planned
            self.states.setdefault(planned.id, "waiting")
            self._describe()

    def _describe(self) -> None:
        """Finds the columns: the keys and sizes that differ between the trials."""
        trials = list(self.trials.values())
        self.costs = {planned.id: planned.cost for planned in trials}
        settings = settings_of(trials)
        self.varied = varied_keys(list(settings.values()))
        if len({spelled(one.get("seed")) for one in settings.values()}) > 1:
            self.varied += ("seed",)
        self.settings = {key: [one.get(k) for k in self.varied] for key, one in settings.items()}
        named = short_names(tuple(dict.fromkeys((*self.varied, *self.searched))))
        self.titles = [named[key] for key in self.varied]
        self.known = named | {title: title for title in (*named.values(), *FACTS)}
        self.sizes = [
            name
            for name, size in (("params", _params), ("tokens", _tokens))
            if len(set(map(size, trials))) > 1
        ]

    def event(self, event: Event, state: str) -> None:
        """Notes what happened to a trial, which is now in `state`."""
        key = event.key
        self.states[key] = state
        self.notes[key] = f"attempt {event.attempt}" if event.attempt > 1 else ""
        if event.kind == "finished":
            self.finished.append(key)
            self.results.pop(key, None)
            self.followed.pop(key, None)
        if event.kind == "retried":
            self.say(f"{key}: {event.reason} in attempt {event.attempt}; trying again")
        elif not self.console.is_terminal and event.kind == "finished":
            done = sum(state not in NOT_ENDED for state in self.states.values())
            loss = [f"loss {self._loss(key):.4f}"] if self._loss(key) is not None else []
            named = zip(self.titles, self.settings[key], strict=True)
            about = [state, *loss, *(f"{name}={cell(value)}" for name, value in named)]
            of = f"{len(self.states)}" + (f" + about {self.to_come}" if self.to_come else "")
            self.say(f"[{done}/{of}] {key}: {', '.join(about)}")

    def say(self, line: str) -> None:
        """Prints a line that stays, above the table."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def tick(self) -> None:
        """Shows the present state, at most once in LIVE_EVERY or PLAIN_EVERY seconds, and so seldom
        that it takes at most SHARE of the time."""
        every = max(LIVE_EVERY, self.took / SHARE) if self.console.is_terminal else PLAIN_EVERY
        if time.monotonic() - self.shown < every:
            return
        self.shown = time.monotonic()
        for key, state in self.states.items():
            if state == "running":
                self._follow(key).look()
        if self.console.is_terminal:
            rows = max(1, self.console.height - AROUND)
            table = self._table(self._present(), rows)
            self.live.update(rich.console.Group(self.summary(), table), refresh=True)
        else:
            self.say(self.summary())
        self.took = time.monotonic() - self.shown

    def summary(self) -> str:
        """Counts by state, elapsed time and time left, in one line."""
        states = list(self.states.values())
        counts = [f"{states.count(state)} {state}" for state in STATES if state in states]
        elapsed = time.monotonic() - self.began
        flops = sum(
            self.costs[key] * (self._fraction(key) if state == "running" else 1.0)
            for key, state in self.states.items()
            if state == "running" or state not in NOT_ENDED
        )
        total = sum(self.costs.values()) * (1 + self.to_come / max(1, len(self.trials)))
        line = f"{', '.join(counts)}; {clock(elapsed)} elapsed"
        # Until a first trial ends, start-up misleads.
        if not self.finished or not self.skipped < flops < total:
            return line
        return f"{line}, about {clock(elapsed * (total - flops) / (flops - self.skipped))} left"

    def _present(self) -> list[str]:
        """The trials to show: those that run and, as far as there is room, those that have ended.
        Sorted as asked, otherwise the newest first."""
        running = [key for key, state in self.states.items() if state == "running"]
        room = max(0, self.console.height - AROUND - len(running))
        if not self.sort:
            return running + self.finished[::-1][:room]
        ended = [key for key, state in self.states.items() if state not in NOT_ENDED]
        return self._sorted(running + self._sorted(ended, self.sort)[:room], self.sort)

    def _sorted(self, keys: Sequence[str], by: str) -> list[str]:
        return [row["trial"] for row in ordered(map(self._row, keys), by, self.known)]

    def _row(self, key: str) -> dict[str, Any]:
        """What a trial may be sorted by, by title."""
        planned = self.trials[key]
        facts = (key, self.states[key], self._loss(key), _params(planned), _tokens(planned))
        varied = zip(self.titles, self.settings[key], strict=True)
        return dict(varied) | dict(zip(FACTS, facts, strict=True))

    def _table(self, keys: Sequence[str], most: int) -> rich.console.Group:
        """The table of the first trials, and what it leaves out."""
        shown = list(keys)[:most]
        rows = [self._row(key) for key in shown]
        losses = ["" if row["loss"] is None else f"{row['loss']:.4f}" for row in rows]
        speeds = [self._follow(key).row.get("tokens_per_second") for key in shown]
        retries = [self.notes.get(key, "") for key in shown]
        sizes = {n: [amount(r[n]) if r[n] else "counted" for r in rows] for n in self.sizes}
        table, left = fitted(
            [
                Column("trial", shown, number=False),
                Column("status", [self._progress(key) for key in shown], number=False),
                *(Column(name, [cell(row[name]) for row in rows], 1) for name in self.titles),
                *(Column(name, texts, 2) for name, texts in sizes.items()),
                Column("loss", losses),
                Column("curve", [self._curve(key) for key in shown], number=False),
                Column("tokens/s", [f"{s:,.0f}" if s else "" for s in speeds], 3),
                *([Column("", retries, 4, number=False)] if any(retries) else []),
            ],
            self.console.width,
        )
        left = [title for title in left if title]
        notes = [left_out(left)] if left else []
        if any(self.states[key] == "running" for key in shown):
            notes.append("loss: of running trials the newest training loss, else the final one")
        if len(keys) > len(shown):
            notes.append(f"{len(keys) - len(shown):,} more: isoflop runs {self.workdir}")
        return rich.console.Group(table, *(rich.text.Text(note, style="dim") for note in notes))

    def _progress(self, key: str) -> Any:
        if self.states[key] != "running":
            return self.states[key]
        return rich.progress_bar.ProgressBar(1.0, self._fraction(key), width=10)

    def _follow(self, key: str) -> Followed:
        """The metrics of a trial, as they were at the last tick if it runs."""
        if key not in self.followed:
            self.followed[key] = Followed(self.workdir / key / "metrics.jsonl").look()
        return self.followed[key]

    def _fraction(self, key: str) -> float:
        planned = self.trials[key]
        done = max(0, self._follow(key).row.get("step", 0) - planned.branched_at)
        return min(1.0, done / (planned.about["steps"] - planned.branched_at))

    def _loss(self, key: str) -> float | None:
        """The loss of a trial that is done or was stopped early, or the newest of one that runs."""
        if self.states[key] == "running":
            row = self._follow(key).row
            return row.get("loss", row.get("eval_loss"))
        if key not in self.results:
            self.results[key] = read_json(self.workdir / key / "result.json", AGAIN) or {}
        ended_well = self.states[key] in ("done", "stopped")
        return self.results[key].get("eval_loss") if ended_well else None

    def _curve(self, key: str) -> str:
        return sparkline(self._follow(key).losses, 12, self.console.encoding)


def settings_of(trials: Sequence[Planned]) -> dict[str, dict[str, Any]]:
    """The values in each trial of all keys that any trial sets, by id."""
    keys = dict.fromkeys(key for planned in trials for key in planned.overrides)
    return {
        p.id: {k: p.overrides[k] if k in p.overrides else _configured(p, k) for k in keys}
        for p in trials
    }


def _configured(planned: Planned, key: str) -> Any:
    """The value of a dotted key in the config of a trial; None if it has no such key."""
    *path, leaf = key.split(".")
    node = planned.config
    for section in path:
        node = node.get(section, {})
    return node.get(leaf)


def _params(planned: Planned) -> int:
    return planned.params


def _tokens(planned: Planned) -> int:
    return planned.about["tokens"]


NOT_ENDED = ("waiting", "in use", "running")  # in use: another process trains it
STATES = (*NOT_ENDED, "done", "stopped", "diverged", "failed")


def columns(*titles: str) -> rich.table.Table:
    """An empty table with these columns; numbers are aligned right."""
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    numbers = ("params", "tokens", "steps", "FLOPs", "est. time", "loss", "tokens/s")
    for title in titles:
        table.add_column(title, justify="right" if title in numbers else "left", no_wrap=True)
    return table
