"""The rungs of a sweep that stops trials early: their steps, whether they compare like with like,
and where each trial is while the sweep runs."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from launch import amounts
from launch.files import AGAIN, read_json, write_json
from launch.sweep.expand import Planned
from launch.sweep.stopping import Position, Stopping, next_trials, position
from launch.trial.trunk import stable_steps
from train import duration

LENGTHLESS = ("constant", "inverse_sqrt")
"""Schedules whose rate at a step does not depend on the length of the run; nor does that of wsd
before its decay."""
LENGTH = ("train.duration", "schedule.name", "schedule.decay", "schedule.final")
"""Keys that decide the learning rate at a step."""
SAME_LOSS = ("objective.name", "data.hash", "eval.sequences")
"""Keys that must agree, because they decide what the loss measures."""


class Rungs:
    """The trials of a sweep that may be stopped, with their positions, which follow their folders.

    Raises ValueError if their losses at a rung are not comparable, or if the folder was trained
    with other rungs.
    """

    def __init__(self, trials: Sequence[Planned], rule: Stopping, workdir: Path):
        self.rule, self.workdir = rule, workdir
        self.trials: dict[str, Planned] = {}
        self.steps: dict[str, tuple[int, ...]] = {}
        self.counts: dict[str, int] = {}
        self.busy: set[str] = set()  # being trained here
        self.held: set[str] = set()  # being trained by another process
        self.failed: set[str] = set()
        self.more = False  # whether a search may add trials
        self.positions: dict[str, Position] = {}
        before = read_json(workdir / "stopping.json", AGAIN) or {}
        if before.get("rungs", list(rule.rungs)) != list(rule.rungs):
            raise ValueError(
                f"rungs={','.join(rule.rungs)}, but --workdir={workdir} has trials that were "
                f"stopped at {','.join(before['rungs'])}; give it these, or another --workdir"
            )
        self.add(trials)

    def add(self, trials: Sequence[Planned]) -> None:
        """Adds trials, which a search may ask for while others train."""
        new = {p.id: p for p in trials if judged(p) and p.id not in self.trials}
        require_comparable([*self.trials.values(), *new.values()], self.rule)
        self.trials |= new
        self.steps |= {key: rung_steps(planned, self.rule) for key, planned in new.items()}
        self.counts |= {key: len(self.steps[key]) for key in new}
        for key in new:
            self._read(key)

    def look(self, held: set[str]) -> None:
        """Reads where every trial is; `held` are those that other processes train."""
        self.busy, self.held = set(), set(held)
        for key in self.trials:
            self._read(key)

    def take(
        self, grant: Callable[[Planned, float], bool] = lambda planned, part: True
    ) -> Planned | None:
        """The next trial that may go on, with the step at which it stops; None if none may now.
        `grant` says whether a trial may train up to a part of its length."""
        jobs = next_trials(self.rule, self.positions, self.counts, self.more)
        free = ((key, rung) for key, rung in jobs if key not in self.busy | self.held)
        granted = (job for job in free if grant(self.trials[job[0]], self._part(*job)))
        key, rung = next(granted, (None, 0))
        if key is None:
            return None
        config = self.trials[key].config.copy_and_resolve_references()
        last = rung == self.counts[key]
        config.checkpoint.stop_at = "" if last else f"{self.steps[key][rung]} steps"
        self.positions[key] = replace(self.positions[key], heading=rung, begun=True)
        self.busy.add(key)
        return replace(self.trials[key], config=config)

    def _part(self, key: str, rung: int) -> float:
        """The part of a trial's length that ends at a rung."""
        length = self.trials[key].about["steps"]
        return (*self.steps[key], length)[rung] / length

    def ended(self, key: str, state: str) -> None:
        """Notes that a trial is no longer trained here: it has ended in `state`, or is in use."""
        self.busy.discard(key)
        if state == "in use":
            self.held.add(key)
            return
        if state == "failed":
            self.failed.add(key)
        self._read(key)

    def waiting(self) -> list[str]:
        """The trials that wait at a rung."""
        here = self.positions
        return [k for k in self.trials if not here[k].state and here[k].arrived > here[k].heading]

    def record(self) -> None:
        """Writes stopping.json: the rule, the losses at each rung, and who went on."""
        table = []
        for rung, text in enumerate(self.rule.rungs):
            ranked, went_on = self._at(rung)
            known = [{"id": key, "loss": x if math.isfinite(x) else None} for x, key in ranked]
            table.append({"rung": text, "trials": known, "went_on": went_on})
        about = {"method": self.rule.method, "rungs": self.rule.rungs, "keep": str(self.rule.keep)}
        write_json(self.workdir / "stopping.json", about | {"table": table})

    def explain(self) -> None:
        """Writes what stopped each waiting trial into its result.json."""
        waiting = set(self.waiting())
        for rung, text in enumerate(self.rule.rungs):
            ranked, _ = self._at(rung)
            for place, (loss, key) in enumerate(ranked, start=1):
                if key not in waiting or self.positions[key].heading != rung:
                    continue
                by = {"method": self.rule.method, "rung": text, "loss": loss}
                by |= {"place": place, "of": len(ranked)}
                file = self.workdir / key / "result.json"
                result = read_json(file, AGAIN)
                if result.get("stopped_by") != by:
                    write_json(file, result | {"stopped_by": by})

    def lines(self) -> list[str]:
        """What happened at each rung, and the share of all FLOPs that was spent."""
        found = []
        for rung, text in enumerate(self.rule.rungs):
            ranked, went_on = self._at(rung)
            best = [loss for loss, _ in ranked if math.isfinite(loss)]
            range_ = f"; loss {best[0]:.4f} to {best[-1]:.4f}" if best else ""
            found.append(f"  rung {text}: {len(went_on)} of {len(ranked)} trials went on{range_}")
        spent, whole = 0.0, sum(p.flops for p in self.trials.values())
        for key, planned in self.trials.items():
            ends = (*self.steps[key], planned.about["steps"])
            here = self.positions[key]
            spent += planned.flops_until(ends[here.heading] if here.arrived else 0)
        share = f"{amounts.flops(spent)} of {amounts.flops(whole)} FLOPs were spent"
        return [f"{self.rule.method}: {share}, {spent / whole:.0%}", *found]

    def outlook(self) -> str:
        """One line for a dry run: the rungs, and the FLOPs if each lets the usual share go on."""
        share = 0.5 if self.rule.method == "median" else float(self.rule.keep)
        spent, whole = 0.0, sum(p.flops for p in self.trials.values())
        for key, planned in self.trials.items():
            ends = (0, *self.steps[key], planned.about["steps"])
            for rung, (start, end) in enumerate(itertools.pairwise(ends)):
                spent += share**rung * planned.flops_until(end - start)
        return (
            f"--stop={self.rule.method} compares {len(self.trials)} trials at "
            f"{', '.join(self.rule.rungs)}: about {amounts.flops(spent)} of "
            f"{amounts.flops(whole)} FLOPs if {share:.0%} go on each time"
        )

    def _at(self, rung: int) -> tuple[list[tuple[float, str]], list[str]]:
        """(the losses at a rung with the ids, best first; those that went on, best first)."""
        losses = {key: here.loss(rung) for key, here in self.positions.items()}
        ranked = sorted((loss, key) for key, loss in losses.items() if loss is not None)
        return ranked, [key for _, key in ranked if self.positions[key].heading > rung]

    def _read(self, key: str) -> None:
        here = position(self.workdir / key, self.steps[key], self.rule.best_so_far)
        self.positions[key] = replace(here, state="lost") if key in self.failed else here


def rung_steps(planned: Planned, rule: Stopping) -> tuple[int, ...]:
    """The steps of a trial's rungs, without those at or after its end. ValueError for rungs that do
    not rise, or that are no durations of this trial."""
    about = planned.about
    units = duration.Units(
        tokens=_per_step(planned),
        examples=0,  # stopping.UNITS has neither these nor
        epochs=0,
        flops=0,
        total_steps=about["steps"],
    )
    steps = [duration.to_steps("rungs", text, units) for text in rule.rungs]
    if steps[0] < 1 or any(a >= b for a, b in itertools.pairwise(steps)):
        raise ValueError(
            f"rungs={','.join(rule.rungs)} is steps {steps} of {planned.id}; let them rise from 1"
        )
    return tuple(step for step in steps if step < about["steps"])


def require_comparable_axes(axes: Collection[str], rule: Stopping) -> None:
    """ValueError if a search that asks for trials one by one varies a key that makes their losses
    at a rung incomparable: that would be found only in the middle of the sweep."""
    for key in (*SAME_LOSS, *LENGTH):
        if key in axes:
            raise ValueError(
                f"stop={rule.method} compares like with like, but the search varies {key}; drop "
                "this axis, or leave out --stop"
            )


def judged(planned: Planned) -> bool:
    """Whether a trial may be stopped: not if it is held out or counted."""
    return not (planned.holdout or planned.about["counted"])


def require_comparable(trials: Sequence[Planned], rule: Stopping) -> None:
    """ValueError, naming the key and the remedy, unless the losses at every rung compare like with
    like: the same measure, at equal tokens, on schedules that agree up to there."""
    for planned in trials:
        for key in ("trunk", "share_trunks"):
            if value := planned.config.checkpoint[key]:
                raise ValueError(
                    f"stop={rule.method} compares trials that train from their first step; drop "
                    f"checkpoint.{key}={value!r}"
                )
    for key in (*SAME_LOSS, "schedule.name"):
        section, name = key.split(".")
        values = {p.id: p.config[section].get(name) for p in trials}
        _require_equal(rule, key, values, "let it be the same in all, or leave out --stop")
    steps = {planned.id: rung_steps(planned, rule) for planned in trials}
    for rung, text in enumerate(rule.rungs):
        there = [planned for planned in trials if len(steps[planned.id]) > rung]
        if any(_depends_on_length(p, steps[p.id][rung]) for p in there):
            _require_equal_lengths(there, rule, text)
        tokens = {p.id: steps[p.id][rung] * _per_step(p) for p in there}
        within = max(map(_per_step, there), default=0)
        _require_equal(rule, f"the rung {text!r}", tokens, "give --rungs in tokens", within)
        warmups = {p.id: duration.steps(p.config.schedule.warmup) * _per_step(p) for p in there}
        if there and min(tokens.values()) < max(warmups.values()):
            after = f"let the rung {text!r} come after it"
            _require_equal(rule, "schedule.warmup", warmups, after, within)


def _require_equal_lengths(trials: Sequence[Planned], rule: Stopping, rung: str) -> None:
    """ValueError unless trials of one schedule, whose rate up to a rung depends on its length, have
    the same length, decay and final rate."""
    name, within = trials[0].config.schedule.name, max(map(_per_step, trials))
    remedy = (
        f"schedule.name={name!r} depends on it up to the rung {rung!r}, so "
        f"{'let the rungs end before the decay' if name == 'wsd' else 'use wsd or constant'}, or "
        "let it be the same in all"
    )
    lengths = {p.id: p.about["tokens"] for p in trials}
    _require_equal(rule, "train.duration", lengths, remedy, within)
    decays = {p.id: duration.steps(p.config.schedule.decay) * _per_step(p) for p in trials}
    _require_equal(rule, "schedule.decay", decays if name == "wsd" else {}, remedy, within)
    finals = {p.id: p.config.schedule.final for p in trials}
    _require_equal(rule, "schedule.final", finals, remedy)


def _require_equal(
    rule: Stopping, key: str, values: Mapping[str, object], remedy: str, within: float | None = None
) -> None:
    """ValueError names two trials whose values differ; those of tokens by more than `within`."""
    order = sorted(values, key=lambda trial: (str(type(values[trial])), values[trial]))
    if not order or values[order[0]] == values[order[-1]]:
        return
    low, high = values[order[0]], values[order[-1]]
    if within is not None and high - low <= within:
        return
    shown = [f"{amounts.amount(x)} tokens" if within is not None else repr(x) for x in (low, high)]
    raise ValueError(
        f"stop={rule.method} compares like with like, but {key} is {shown[0]} in {order[0]} and "
        f"{shown[1]} in {order[-1]}; {remedy}"
    )


def _per_step(planned: Planned) -> float:
    """Tokens of one step."""
    return planned.about["tokens"] / planned.about["steps"]


def _depends_on_length(planned: Planned, step: int) -> bool:
    """Whether the rate up to a step depends on how long the run is."""
    name = planned.config.schedule.name
    return name not in LENGTHLESS and (name != "wsd" or step > stable_steps(planned.config))
