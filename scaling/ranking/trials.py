"""The trials of a folder, finished or not: their status, settings and results, sweep by sweep."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.drafts import as_path, read_object
from scaling.flattened import flatten
from scaling.report.number_text import power_of_ten

NOT_COMPARED = ("name", "holdout", "seed", "code")
"""Keys that describe no configuration: trials that differ in them alone repeat each other."""
EQUAL = 1.05  # largest over smallest compute of one budget: runs have whole numbers of steps
ENDED = ("done", "diverged", "stopped", "failed")


@dataclass(frozen=True)
class Trial:
    """One trial. `result` is its result.json, {} until it ends. `settings` are its dotted config
    keys with their values as the sweep's author wrote them ("1e12 flops", not steps).

    `status` is one of ENDED, 'damaged' (a result.json that cannot be read), 'unfinished' (it has
    started) or 'waiting' (it has not).
    """

    id: str
    folder: Path
    status: str
    settings: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", self.result.get("seed", 0)))

    @property
    def holdout(self) -> bool:
        return bool(self.settings.get("holdout", self.result.get("holdout", False)))

    @property
    def params(self) -> int:
        """Parameters; 0 until the trial has ended."""
        return int(sum((self.result.get("params") or {}).values()))

    def metric(self, name: str = "loss") -> tuple[float, float]:
        """The final value of an evaluation metric and its standard error, which comes from the
        finite evaluation set; nan if unknown."""
        measured = (self.result.get("metrics") or {}).get(name)
        if isinstance(measured, Mapping):
            found = measured.get("value"), measured.get("se")
        elif name == "loss":
            found = self.result.get("eval_loss"), self.result.get("eval_loss_se")
        else:
            found = measured, None
        value, error = (float("nan") if v is None else float(v) for v in found)
        return value, error


@dataclass(frozen=True)
class Sweep:
    """The trials of one sweep. `varied` are the keys that tell its configurations apart, in the
    order in which the sweep sets them. Runs of `isoflop train` that lie side by side count as a
    sweep without a plan."""

    name: str
    folder: Path
    trials: tuple[Trial, ...]
    varied: tuple[str, ...]


def read_sweeps(folder: str | Path) -> list[Sweep]:
    """Every sweep in a folder: the folder itself, those in it, and the runs in it that belong to
    none. FileNotFoundError if it holds no run at all."""
    root = as_path(folder)
    inside = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    planned = [p for p in (root, *inside) if (p / "sweep.json").is_file()]
    found = [_planned(p) for p in planned]
    if root not in planned:
        if is_run(root):
            found.append(_loose(root.name, root.parent, [root]))
        elif runs := [p for p in inside if p not in planned and is_run(p)]:
            found.append(_loose(root.name, root, runs))
        # Folders of runs that were trained one by one.
        for group in (p for p in inside if p not in planned and not is_run(p)):
            if runs := sorted(p for p in group.glob("*") if p.is_dir() and is_run(p)):
                found.append(_loose(group.name, group, runs))
    if not found:
        raise FileNotFoundError(
            f"runs={root} holds no run (no sweep.json, config.json or result.json); give the "
            "folder of a sweep: runs/quickstart"
        )
    return found


def equal_budgets(sweep: Sweep) -> list[Sweep]:
    """The trials of a sweep by their compute (6ND, within EQUAL), the least first; those that have
    not ended or are held out are in none."""
    compared = [trial for trial in sweep.trials if not trial.holdout]
    spent = [(float((t.result.get("flops") or {}).get("6nd") or 0), t) for t in compared]
    budgets: list[tuple[float, list[Trial]]] = []
    for flops, trial in sorted((pair for pair in spent if pair[0]), key=lambda pair: pair[0]):
        if not budgets or flops > EQUAL * budgets[-1][0]:
            budgets.append((flops, []))
        budgets[-1][1].append(trial)
    parts = []
    for flops, trials in budgets:
        different = varied_keys([trial.settings for trial in trials])
        varied = tuple(key for key in sweep.varied if key in different)
        name = f"{sweep.name}-{power_of_ten(flops)}-flops"
        parts.append(Sweep(name, sweep.folder, tuple(trials), varied))
    return parts


def is_run(folder: Path) -> bool:
    """Whether a trial has started in this folder."""
    return (folder / "config.json").is_file() or (folder / "result.json").is_file()


def varied_keys(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The keys whose values differ between the settings, without those of NOT_COMPARED; a key that
    one of them lacks differs."""
    order: dict[str, None] = {}
    for one in settings:
        order |= dict.fromkeys(one)
    compared = [key for key in order if key.partition(".")[0] not in NOT_COMPARED]
    return tuple(key for key in compared if _differ([one.get(key) for one in settings]))


def _differ(values: Sequence[Any]) -> bool:
    """Whether two of the values are spelled differently. Most are equal, which is tested first."""
    first, text = values[0], spelled(values[0])
    return any(
        not (type(value) is type(first) and value == first) and spelled(value) != text
        for value in values
    )


def spelled(value: Any) -> str:
    """A value as JSON text, which can be compared and hashed whatever its type."""
    return repr(value) if type(value) in (int, float) else _SPELLING.encode(value)


_SPELLING = json.JSONEncoder(sort_keys=True, default=str)  # json.dumps makes one for each call


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted key, or the whole key where two would have the same name."""
    last = [key.rpartition(".")[2] for key in keys]
    return {k: name if last.count(name) == 1 else k for k, name in zip(keys, last, strict=True)}


def _planned(folder: Path) -> Sweep:
    """The sweep that sweep.json describes, with trials that have not started."""
    plan = read_object(folder / "sweep.json")
    if not all(isinstance(plan.get(key), dict) for key in ("base", "trials")):
        raise ValueError(f"{folder / 'sweep.json'} describes no sweep; delete it and run again")
    base, overrides = flatten(plan["base"]), {}
    for key, about in plan["trials"].items():
        overrides[key] = dict(about.get("overrides") or {})
    # Keys that no trial sets are equal in all.
    order = dict.fromkeys(key for one in overrides.values() for key in one)
    listed = [{k: one.get(k, base.get(k)) for k in order} for one in overrides.values()]
    varied = varied_keys(listed)
    present = {path.name for path in folder.iterdir()}
    trials = []
    for key, changes in overrides.items():
        status, result = _outcome(folder / key) if key in present else ("waiting", {})
        trials.append(Trial(key, folder / key, status, base | changes, result))
    return Sweep(folder.name, folder, tuple(trials), varied)


def _loose(name: str, folder: Path, runs: Sequence[Path]) -> Sweep:
    """Runs without a sweep.json. What resolving derives from other keys counts as varied too."""
    trials = []
    for run in runs:
        status, result = _outcome(run)
        try:
            config = read_object(run / "config.json")
            settings = flatten({k: v for k, v in config.items() if k != "code"})
        except (OSError, ValueError):
            settings = dict(result.get("overrides") or {})
        trials.append(Trial(run.name, run, status, settings, result))
    return Sweep(name, folder, tuple(trials), varied_keys([t.settings for t in trials]))


def _outcome(run: Path) -> tuple[str, dict[str, Any]]:
    """The status of a run that may have started, and its result.json."""
    try:
        result = read_object(run / "result.json")
    except OSError:
        return ("unfinished" if (run / "config.json").is_file() else "waiting"), {}
    except ValueError:
        return "damaged", {}
    status = result.get("status")
    return (status, result) if status in ENDED else ("damaged", {})
