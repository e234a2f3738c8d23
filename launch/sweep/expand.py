"""The trials of a sweep: its config file expanded, resolved and counted, without duplicates."""

import heapq
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from configs import space
from data.kinds import Dataset
from launch import amounts
from launch.config import config_file, imports
from launch.errors import writing
from launch.files import AGAIN, read_json, write_json
from launch.runners.tasks import Slot
from launch.trial import trunk
from launch.trial.identity import defaults, former_ids, identity, trial_id
from launch.trial.resolve import describe, prepare, resolve
from train.flatten import difference, flatten

CONVENTION = "chinchilla"  # counts attention and the head, so that time is in proportion to it
ASSUMED_FLOPS = {"cpu": 4e10, "gpu": 5e13, "tpu": 5e13}
"""Model FLOP/s of one core or device where no trial has been measured yet."""
START_SECONDS = 6.0  # of one trial: data, compilation, final evaluation, checkpoint


@dataclass(frozen=True)
class Planned:
    """One trial of a sweep before it runs. `about` is what `trial.describe` says of it.

    A trial with a `trunk`, the id of another, starts from its state after `branched_at` steps.
    """

    id: str
    overrides: Mapping[str, Any]
    config: ConfigDict
    about: Mapping[str, Any]
    trunk: str = ""
    branched_at: int = 0

    @property
    def holdout(self) -> bool:
        return self.config.holdout

    @property
    def params(self) -> int:
        return sum(self.about["params"].values())

    @property
    def flops(self) -> float:
        return self.about["flops"][CONVENTION]

    @property
    def cost(self) -> float:
        """The FLOPs that its trunk has not spent already."""
        return self.flops - (self.flops_until(self.branched_at) if self.branched_at else 0.0)

    def flops_until(self, step: int) -> float:
        return self.flops * step / self.about["steps"]


@dataclass(frozen=True)
class Plan:
    """A sweep: the config all trials start from, and the trials, the largest first."""

    spec: str
    base: ConfigDict
    trials: tuple[Planned, ...]
    duplicates: int

    @property
    def stages(self) -> tuple[list[Planned], ...]:
        """What may run at the same time: trials on their own, those that branch from them, and
        the held-out ones, which all others predict."""
        fitted = [planned for planned in self.trials if not planned.holdout]
        return (
            [planned for planned in fitted if not planned.trunk],
            [planned for planned in fitted if planned.trunk],
            [planned for planned in self.trials if planned.holdout],
        )


def plan(
    spec: str, overrides: Mapping[str, str], workdir: Path | None = None, seeds: int = 1
) -> Plan:
    """The trials of a config file's `get_sweep`, with the command line's overrides on their base,
    each with `seeds` seeds if it sets no seed.

    Data is prepared here, once, before any worker starts. A trial that `workdir` holds under an id
    of an older rule keeps that id. Raises ValueError or FileNotFoundError in one line that names
    the trial.
    """
    base = config_file.load_config(spec, overrides, workdir)
    module, _ = config_file.load_module(spec)
    if not hasattr(module, "get_sweep"):
        raise ValueError(f"config={spec} has no get_sweep(config); use isoflop train for one model")
    variations = space.seeds(trials_of(module, base, spec), seeds, base.seed)
    if not variations:
        raise ValueError(f"config={spec}: get_sweep returns no trials")
    planner = Planner(base, workdir)
    trials = planner.all(variations, spec)
    planner.print_notes()
    return Plan(spec, base, in_stages(trials), len(variations) - len(trials))


def trials_of(module: ModuleType, base: ConfigDict, spec: str) -> list[dict[str, Any]]:
    """The overrides of every trial that a config file's `get_sweep` returns or yields; NumPy
    scalars and arrays become Python numbers and lists. ValueError for anything else.
    """
    with config_file.executing(spec):
        found = module.get_sweep(base)
    if isinstance(found, Mapping) or not isinstance(found, Iterable):
        kind = type(found).__name__
        raise ValueError(f"config={spec}: get_sweep returns a {kind}; return a list of dicts")
    with config_file.executing(spec):  # a generator runs only here
        trials = list(found)
    for number, trial in enumerate(trials):
        if not isinstance(trial, Mapping):
            raise ValueError(
                f"config={spec}: trial {number} is {trial!r}; write a dict of overrides"
            )
    return [{str(key): plain(value) for key, value in trial.items()} for trial in trials]


def plain(value: Any) -> Any:
    """A value with NumPy scalars and arrays, also inside lists, as Python's own types."""
    if isinstance(value, list | tuple):
        return tuple(map(plain, value)) if isinstance(value, tuple) else [*map(plain, value)]
    return value.tolist() if hasattr(value, "tolist") else value


class Planner:
    """Plans the trials of a base config one by one. Their data is prepared once, here."""

    def __init__(self, base: ConfigDict, workdir: Path | None):
        self.base, self.notes = base, set()
        self._known = recorded(workdir)["trials"] if workdir else {}
        self._datasets: dict[str, Dataset] = {}

    def planned(self, variation: dict[str, Any]) -> Planned:
        """The trial with these overrides; ValueError if they are not valid."""
        if "imports" in variation:
            raise ValueError(
                "imports cannot differ between trials; name all files for the whole sweep"
            )
        config = self.base.copy_and_resolve_references()
        config.lock()
        self.notes |= set(config_file.apply_overrides(config, variation))
        section = config.data.to_json()
        if section not in self._datasets:
            self._datasets[section] = prepare(config)
        resolved = resolve(config, self._datasets[section])
        older = [key for key in former_ids(resolved) if key in self._known] if self._known else []
        key = older[0] if older else trial_id(resolved)
        about = describe(resolved, self._datasets[section]) | {"id": key}
        if resolved.holdout and about["counted"]:
            raise ValueError(
                f"model.family={resolved.model.family!r} is counted, so no law predicts it; drop "
                "holdout=True"
            )
        return Planned(key, variation, resolved, about)

    def all(self, variations: Iterable[dict[str, Any]], spec: str) -> list[Planned]:
        """The trials without duplicates; ValueError names the one that is not valid."""
        trials: dict[str, Planned] = {}
        for number, variation in enumerate(variations):
            try:
                planned = self.planned(variation)
            except ValueError as error:
                raise ValueError(f"trial {number} of {spec} {variation}: {error}") from error
            if trials.setdefault(planned.id, planned).holdout != planned.holdout:
                raise ValueError(
                    f"trial {number} of {spec} {variation} is both fitted and held out; drop one"
                )
        return list(trials.values())

    def print_notes(self) -> None:
        """What there is to say of the trials planned so far, each line once."""
        for note in sorted(self.notes):
            print(note, file=sys.stderr)
        self.notes.clear()


def in_stages(trials: Iterable[Planned]) -> tuple[Planned, ...]:
    """The trials as a plan has them: with shared trunks, the largest first."""
    shared = share_trunks(trials)
    return tuple(sorted(shared, key=lambda planned: (-planned.cost, planned.id)))


def share_trunks(trials: Iterable[Planned]) -> list[Planned]:
    """The trials; those that ask for it branch from the longest fitted one that is the same so far.

    That one is a trial like any other, which also keeps a checkpoint wherever another leaves it. A
    held-out trial that is longer than every fitted one starts where that one begins to decay.
    """
    trials = list(trials)
    groups: dict[str, list[Planned]] = {}
    for planned in trials:
        if planned.config.checkpoint.share_trunks:
            common = json.dumps(trunk.stem(identity(planned.config)), sort_keys=True)
            groups.setdefault(common, []).append(planned)
    changed = {}
    for group in groups.values():
        last = {planned.id: trunk.branch_step(planned.config) for planned in group}
        fitted = [planned for planned in group if not planned.holdout]
        longest = max(fitted, key=lambda planned: (last[planned.id], planned.id), default=None)
        for planned in group:
            step = min(last[planned.id], last[longest.id]) if longest else 0
            if planned is not longest and step > 0:
                changed[planned.id] = replace(planned, trunk=longest.id, branched_at=step)
        if steps := {changed[planned.id].branched_at for planned in group if planned.id in changed}:
            config = longest.config.copy_and_resolve_references()
            config.checkpoint.keep_at += tuple(f"{step} steps" for step in sorted(steps))
            changed[longest.id] = replace(longest, config=config)
    return [changed.get(planned.id, planned) for planned in trials]


def savings(plan: Plan, branched_at: Mapping[str, int]) -> str:
    """One line on the FLOPs that shared trunks save, given the first step of each trial; '' if
    none."""
    saved = sum(planned.flops_until(branched_at[planned.id]) for planned in plan.trials)
    if not saved:
        return ""
    whole = sum(planned.flops for planned in plan.trials)
    count = sum(step > 0 for step in branched_at.values())
    return (
        f"{count} trials branch from longer ones: {amounts.flops(whole - saved)} FLOPs in place of "
        f"{amounts.flops(whole)}, {saved / whole:.0%} saved"
    )


def record(plan: Plan, workdir: Path) -> None:
    """Writes sweep.json; ValueError if the folder holds a sweep of another base config,
    BadInput if it cannot be written."""
    base, before = json.loads(plan.base.to_json()), recorded(workdir)
    trials = {
        planned.id: {"overrides": planned.overrides, "holdout": planned.holdout}
        for planned in plan.trials
    }
    if before["base"] is not None:
        # A key that is younger than the folder counts as there at its default.
        usual = defaults(base)
        there, here = usual | flatten(before["base"]), usual | flatten(base)
        if there.get("imports_hash") != here.get("imports_hash"):
            raise ValueError(
                f"--workdir={workdir} holds another sweep: {imports.difference(workdir)}"
            )
        if differs := difference(there | {"imports": here.get("imports")}, here):
            raise ValueError(
                f"--workdir={workdir} holds another sweep: {differs}; use another folder"
            )
        trials = before["trials"] | trials
    with writing("workdir", workdir):
        imports.keep(plan.base, workdir)
        new = {"config": plan.spec, "base": base, "trials": trials}
        write_json(workdir / "sweep.json", new | {key: before[key] for key in before.keys() - new})


def recorded(workdir: Path) -> dict[str, Any]:
    """The base config and the trials in sweep.json; {"base": None, "trials": {}} without one.
    ValueError if it is damaged."""
    file = workdir / "sweep.json"
    found = read_json(file, AGAIN)
    if found is None:
        return {"base": None, "trials": {}}
    if not all(isinstance(found.get(key), dict) for key in ("base", "trials")):
        raise ValueError(f"{file} describes no sweep; delete it and run again")
    return found


def measured_flops(results: Iterable[Mapping]) -> float | None:
    """Model FLOP/s of one core or device, the median of single-core results; None without any."""
    rates = sorted(
        result["flops"][CONVENTION] / result["seconds"]
        for result in results
        if result.get("status") == "done"
        and not (result["holdout"] or result.get("counted"))
        and result["seconds"] > 0
    )
    return rates[len(rates) // 2] if rates else None


def seconds(flops: float, slot: Slot, rate: float) -> float:
    """Estimated time of one trial on a slot at `rate` FLOP/s a core or device."""
    return START_SECONDS + flops / (rate * max(1, len(slot.cores)))


def makespan(trials: Iterable[Planned], slots: list[Slot], rate: float) -> float:
    """Estimated time of the trials in this order, each taken by the slot that is free first."""
    free = [(0.0, index) for index in range(len(slots))]
    for planned in trials:
        time, index = heapq.heappop(free)
        heapq.heappush(free, (time + seconds(planned.cost, slots[index], rate), index))
    return max((time for time, _ in free), default=0.0)
