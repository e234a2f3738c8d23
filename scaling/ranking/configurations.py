"""The configurations of a sweep: trials that share all but the seed, and what they measured."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scaling.ranking.trials import Sweep, Trial, short_names, spelled

DECADE = 8.0  # largest over smallest value from which a numeric key counts as logarithmic


@dataclass(frozen=True)
class Key:
    """A varied key: its dotted and its short name, how its values are spaced ('log', 'linear' or
    'category'), and the distinct values in order."""

    key: str
    name: str
    scale: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Configuration:
    """Trials that share all but the seed. `values` holds the varied keys, `places` the positions of
    their values in `Key.values`; `measured` [k] and `errors` [k] are the trials' metric and its
    standard error from the finite evaluation set."""

    values: Mapping[str, Any]
    places: Mapping[str, int]
    trials: tuple[Trial, ...]
    measured: np.ndarray
    errors: np.ndarray

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(trial.seed for trial in self.trials)

    @cached_property
    def mean(self) -> float:
        return float(self.measured.mean())


def varied(sweep: Sweep) -> list[Key]:
    """The varied keys with their values over all trials, finished or not."""
    names, keys = short_names(sweep.varied), []
    for key in sweep.varied:
        distinct = {spelled(t.settings.get(key)): t.settings.get(key) for t in sweep.trials}
        ordered = tuple(sorted(distinct.values(), key=_in_order))
        keys.append(Key(key, names[key], scale(ordered), ordered))
    return keys


def scale(values: Sequence[Any]) -> str:
    """How the values of a key are spaced: 'category' unless all are numbers."""
    if not all(_is_number(value) for value in values):
        return "category"
    if min(values) <= 0:
        return "linear"
    ratios = np.diff(np.log(values))
    geometric = len(values) > 2 and np.allclose(ratios, ratios[0], rtol=0.05)
    return "log" if geometric or max(values) >= DECADE * min(values) else "linear"


def configurations(
    sweep: Sweep, keys: Sequence[Key], metric: str
) -> tuple[list[Configuration], list[dict[str, str]]]:
    """The finished configurations in the order of the sweep, and the trials that are left out:
    {"trial", "reason"}. ValueError if no finished trial has the metric."""
    groups: dict[tuple[int, ...], dict[int, tuple[Trial, float, float]]] = {}
    left_out, known = [], set()
    at = {key.key: {spelled(value): i for i, value in enumerate(key.values)} for key in keys}
    for trial in sweep.trials:
        value, error = trial.metric(metric)
        if trial.status == "done":
            known |= set(trial.result.get("metrics") or {})
        if reason := _reason(trial, value):
            left_out.append({"trial": trial.id, "reason": reason})
            continue
        place = tuple(at[key][spelled(trial.settings.get(key))] for key in at)
        members = groups.setdefault(place, {})
        if trial.seed in members:
            twin = members[trial.seed][0].id
            left_out.append({"trial": trial.id, "reason": f"repeats {twin}, seed and all"})
            continue
        members[trial.seed] = (trial, value, error)
    if not groups and known and metric not in known:
        near = difflib.get_close_matches(metric, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"they have {', '.join(sorted(known))}"
        raise ValueError(f"metric={metric} is in no result of {sweep.folder}; {hint}")
    found = []
    for place, by_seed in groups.items():
        members = [by_seed[seed] for seed in sorted(by_seed)]
        trials = tuple(trial for trial, _, _ in members)
        places = dict(zip(at, place, strict=True))
        values = {key.key: key.values[places[key.key]] for key in keys}
        measured, errors = (np.array([m[i] for m in members]) for i in (1, 2))
        found.append(Configuration(values, places, trials, measured, errors))
    return found, left_out


def _reason(trial: Trial, value: float) -> str:
    """Why a trial is not ranked; '' if it is."""
    if trial.holdout:
        return "held out"
    if trial.status != "done":
        return trial.status
    if trial.result.get("counted"):
        return "counted, not trained: a baseline"
    return "" if np.isfinite(value) else "no finite value of the metric"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_order(value: Any) -> tuple[float, str]:
    """Sorts numbers by size, then text by the number that it begins with: '4e11 flops'."""
    if _is_number(value):
        return float(value), ""
    text = value if isinstance(value, str) else spelled(value)
    try:
        return float(text.split()[0]), text
    except (ValueError, IndexError):
        return float("inf"), text
