"""Reads points from folders of finished runs: one result.json per trial."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scaling.drafts import as_path, read_object
from scaling.laws import LAWS
from scaling.laws.law import Law
from scaling.rows import COMPONENT, FACTS, STANDARD, baseline, from_rows
from scaling.table import COMPONENTS, FLOP_CONVENTIONS, Baseline, Points
from scaling.validate import one_measure

CONTENTS = ("id", "params", "tokens", "flops", "eval_loss")  # required keys of a result.json


def read_runs(folder: str | Path, law: Law = LAWS["parametric"]) -> Points:
    """Reads the finished runs of a sweep (or of a folder of sweeps) with the columns that `law`
    needs. `left_out` counts runs that are not finished. Counted models become baselines.

    Raises FileNotFoundError if there is no result.json, and ValueError if no run has finished or a
    result.json is damaged.
    """
    root = as_path(folder)
    trials = [p for p in (root, *sorted(root.glob("*")), *sorted(root.glob("*/*"))) if p.is_dir()]
    paths = [p / "result.json" for p in trials if (p / "result.json").is_file()]
    if not paths:
        raise FileNotFoundError(
            f"runs={root} contains no */result.json; give the folder of a sweep: runs/quickstart"
        )
    results, status = [], Counter()
    for path in paths:
        result = read_result(path)
        if result.get("status") == "done":
            results.append((path, result))
        else:
            status[str(result.get("status", "without status"))] += 1
    unfinished = sum(
        (p / "config.json").is_file() and not (p / "result.json").is_file() for p in trials
    )
    status.update({"unfinished": unfinished} if unfinished else {})
    if not results:
        counts = ", ".join(f"{n} {name}" for name, n in status.items())
        raise ValueError(f"runs={root} has no finished run ({counts}); run the same sweep again")
    rows = [from_result(path, result, law) for path, result in results]
    same_components([row for row in rows if row["counted"] == "False"])
    where = [str(path) for path, _ in results]
    points = from_rows(rows, str(root), where, law.columns, law.signed)
    curves = tuple(
        np.array(result.get("curve") or np.empty((0, 3)), float)
        for _, result in results
        if not result.get("counted")
    )
    return replace(points, curves=curves, left_out=dict(status), folder=root)


def read_baselines(folder: str | Path) -> tuple[Baseline, ...]:
    """The counted models of a folder that holds nothing else; () if it holds a trained run."""
    root = as_path(folder)
    paths = [*root.glob("result.json"), *root.glob("*/result.json"), *root.glob("*/*/result.json")]
    results = [(path, read_result(path)) for path in sorted(paths)]
    if not results or not all(result.get("counted") for _, result in results):
        return ()
    done = [(path, result) for path, result in results if result.get("status") == "done"]
    rows = [(from_result(path, result, LAWS["parametric"]), str(path)) for path, result in done]
    one_measure((row for row, _ in rows), str(root))
    return tuple(baseline(row, where, str(root)) for row, where in rows)


def read_result(path: Path) -> dict[str, Any]:
    """Reads one result.json."""
    try:
        return read_object(path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it and run the trial again") from None


def from_result(path: Path, result: dict[str, Any], law: Law) -> dict[str, Any]:
    """A result.json as one row of a points table. Raises ValueError if a key is missing or a value
    has the wrong type.
    """
    missing = [key for key in CONTENTS if key not in result]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it was written by another program")
    try:
        return _row(path, result, law)
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} has a value of the wrong type ({error}); delete it and run the trial again"
        ) from None


def _row(path: Path, result: dict[str, Any], law: Law) -> dict[str, Any]:
    params, flops = result["params"] or {}, result["flops"] or {}
    flops = flops if isinstance(flops, Mapping) else {"6nd": flops}
    hyper = result.get("hyperparameters", {})
    facts = {name: result.get(name, hyper.get(name)) for name in FACTS}
    if facts["unique_tokens"] is None and facts["epochs_of_data"]:
        facts["unique_tokens"] = result["tokens"] / max(float(facts["epochs_of_data"]), 1.0)
    counted = bool(result.get("counted", False))
    return {
        "run": result["id"],
        "counted": str(counted),
        "params": sum(params.values()),
        "tokens": result["tokens"],
        "flops": flops.get("6nd"),
        "loss": result["eval_loss"],
        "loss_se": result.get("eval_loss_se"),
        "holdout": str(bool(result.get("holdout", False))),
        **{component_column(name): value for name, value in params.items()},
        **{f"flops_{name}": flops.get(name) for name in FLOP_CONVENTIONS},
        **{name: value for name, value in facts.items() if value is not None},
        **({} if counted else further(path, result, law)),
    }


def component_column(name: str) -> str:
    """The column of a component: NAME if a decoder has it, otherwise params_NAME."""
    return name if name in COMPONENTS else COMPONENT + name


def further(path: Path, result: dict[str, Any], law: Law) -> dict[str, Any]:
    """The columns that a law needs beyond the standard ones, and the standard error of its response
    if the run has it. They come from result.json, its metrics or its hyperparameters.
    """
    metrics = {}
    for name, measured in (result.get("metrics") or {}).items():
        whole = measured if isinstance(measured, Mapping) else {"value": measured}
        metrics |= {name: whole.get("value"), f"{name}_se": whole.get("se")}
    places = [result, metrics, result.get("hyperparameters") or {}]
    columns = {}
    for name in (*law.columns, f"{law.response}_se"):
        if name in STANDARD:
            continue
        values = [place[name] for place in places if place.get(name) is not None]
        if values:
            columns[name] = values[0]
        elif name in law.columns:
            raise ValueError(
                f"{path} has no {name}, which law={law.name} needs; choose another law"
            )
    return columns


def same_components(rows: list[dict[str, Any]]) -> None:
    """Adds every component to every row, as 0 if its model lacks the component."""
    columns = dict.fromkeys(COMPONENTS)
    columns |= dict.fromkeys(key for row in rows for key in row if key.startswith(COMPONENT))
    for row in rows:
        row.update({name: 0 for name in columns if name not in row})
