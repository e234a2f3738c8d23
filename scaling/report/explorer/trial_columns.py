"""What the page of a sweep shows of its trials, as columns: compact JSON without markup."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scaling.printable import printable
from scaling.ranking.trials import Sweep, Trial, spelled
from scaling.report.explorer.loss_curves import loss_curves, most_points, number
from scaling.report.number_text import label, setting

Curves = list[dict[str, Any]]
DIGITS = 9  # significant digits of a measured number


def trial_columns(sweep: Sweep, ranking: Mapping[str, Any], curves: Curves) -> dict[str, Any]:
    """The trials and their ranking for the page: lists [n] of n trials, in the order of the sweep.

    keys            varied keys as in the ranking, with `labels` (texts) of their `values`
    trials          id, status, held_out, seed, value and error of the metric, params, tokens,
                    flops (6ND), seconds, latest (the newest validation or training loss of a
                    trial that has not ended), and `keys`: the place of each trial's value
    configurations  as in the ranking, as lists [m]; `trials` are places in the lists above
    ranking         the rest of the ranking, with texts that are safe to show
    """
    ids = {trial.id: place for place, trial in enumerate(sweep.trials)}
    columns = _columns(sweep.trials, ranking["metric"], curves)
    keys = [dict(key) | {"name": label(key["name"])} for key in ranking["keys"]]
    for key in keys:
        key["labels"] = [label(setting(value)) for value in key["values"]]
        places = {spelled(value): place for place, value in enumerate(key["values"])}
        columns["keys"][key["key"]] = [
            places.get(spelled(trial.settings.get(key["key"])), -1) for trial in sweep.trials
        ]
        if key["scale"] == "category":
            key["values"] = key["labels"]
    rows = ranking["configurations"]
    listed = {
        name: [_rounded(row[name]) for row in rows]
        for name in ("mean", "spread", "se", "eval_se", "p", "among_best")
    }
    listed["trials"] = [[ids[one] for one in row["trials"]] for row in rows]
    rest = {name: ranking[name] for name in RANKING}
    return _safe(
        {
            "sweep": sweep.name,
            "source": str(sweep.folder),
            "status": dict(Counter(trial.status for trial in sweep.trials)),
            "keys": keys,
            "trials": columns,
            "configurations": listed,
            "ranking": rest,
        }
    )


RANKING = (
    *("metric", "unit", "better", "level", "best", "effects", "interactions", "optima"),
    *("confounding", "warnings", "not_ranked"),
)
"""The parts of a ranking that the page shows as they are."""


def curve_columns(sweep: Sweep, metric: str) -> Curves:
    """The curves of each trial of a sweep."""
    most = most_points(sweep.trials)
    return [loss_curves(trial, metric, most) for trial in sweep.trials]


def _columns(trials: Sequence[Trial], metric: str, curves: Curves) -> dict[str, Any]:
    measured = [trial.metric(metric) for trial in trials]
    results = [trial.result for trial in trials]
    return {
        "id": [label(trial.id) for trial in trials],
        "status": [trial.status for trial in trials],
        "held_out": [int(trial.holdout) for trial in trials],
        "seed": [trial.seed for trial in trials],
        "value": [_rounded(value) for value, _ in measured],
        "error": [_rounded(error) for _, error in measured],
        "params": [trial.params or None for trial in trials],
        "tokens": [number(result.get("tokens")) for result in results],
        "flops": [_rounded(_flops(result)) for result in results],
        "seconds": [_rounded(number(result.get("seconds"))) for result in results],
        "latest": [_latest(t, c) for t, c in zip(trials, curves, strict=True)],
        "keys": {},
    }


def _flops(result: Mapping[str, Any]) -> float | None:
    counted = result.get("flops")
    return number(counted.get("6nd") if isinstance(counted, Mapping) else counted)


def _latest(trial: Trial, curves: Mapping[str, Any]) -> float | None:
    """The newest loss of a trial without a final one: of validation if there is one."""
    newest = curves.get("evaluated") or curves.get("train")
    return newest["value"][-1] if newest and trial.status != "done" else None


def _rounded(value: Any) -> Any:
    """A number with DIGITS significant digits; None if it is not finite; anything else as it is."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _safe(value: Any) -> Any:
    """The same lists and dicts with every text printable and no number that JSON lacks."""
    if isinstance(value, Mapping):
        return {printable(key): _safe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return printable(value) if isinstance(value, str) else value
