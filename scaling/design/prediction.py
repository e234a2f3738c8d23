"""Predictions that are written to a file before their runs start and never changed."""

import glob
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from scaling.drafts import as_path, create, read_object
from scaling.fits.holdout import frontier_value
from scaling.fits.isoflop import isoflop
from scaling.fits.parametric import describe_parametric, fit_parametric
from scaling.fits.robust_fit import ABSOLUTE_DELTAS
from scaling.intervals import extrapolation
from scaling.settings import DEFAULTS, LEVEL, Settings
from scaling.table import Points, fitted_rows, sha256

MOST_OFF = 20.0  # largest factor between flops and 6·params·tokens under any convention
SAME_SIZE = 0.02  # relative difference in N and D up to which a run matches a target
SETTINGS = ("law", "objective", "delta", "draws", "seed")  # the settings of a prediction


def complete_target(
    params: float | None, tokens: float | None, flops: float | None = None
) -> dict[str, float]:
    """The target's params, tokens and flops. A missing one follows from C = 6 N D."""
    given = {"params": params, "tokens": tokens, "flops": flops}
    for name, value in given.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name}={value:g} must be positive and finite, such as 7e9")
    if sum(value is None for value in given.values()) > 1:
        known = ", ".join(f"{name}={value:g}" for name, value in given.items() if value) or "none"
        raise ValueError(f"a run has params, tokens and flops: give two of them (given: {known})")
    n = params if params is not None else flops / (6 * tokens)
    d = tokens if tokens is not None else flops / (6 * params)
    c = flops if flops is not None else 6 * n * d
    off = c / (6 * n * d)
    if not 1 / MOST_OFF < off < MOST_OFF:
        raise ValueError(f"flops={c:g} is {off:.3g} times 6·params·tokens; leave one of them out")
    return {"params": n, "tokens": d, "flops": c}


def prediction_paths(runs: str | None, table: str | None) -> list[Path]:
    """Where `isoflop fit` looks for the predictions of a folder of runs or a CSV file. `predict`
    writes to the first path, beside its input. A sweep writes to the second, inside its folder.
    """
    if table:
        return [as_path(table).with_suffix(".prediction.json")]
    folder = as_path(runs) if as_path(runs).name not in ("", "..") else as_path(runs).resolve()
    return [folder.with_name(f"{folder.name}.prediction.json"), folder / "prediction.json"]


def refuse_finished(points: Points, target: dict[str, Any]) -> None:
    """Raises ValueError if the target's run has finished already."""
    rows = matching_rows(points, target)
    if len(rows):
        raise ValueError(
            f"run {points.run[rows[0]]} of this size has finished already, with a loss of "
            f"{points.loss[rows[0]]:.4g}; isoflop fit --holdout=RUN shows what the other runs "
            "would have predicted"
        )


def matching_rows(points: Points, target: dict[str, Any]) -> np.ndarray:
    """The rows that match the target: by name or, if it has no name, by N and D."""
    if target.get("run"):
        return np.flatnonzero(points.run == target["run"])
    off_n = np.abs(points.params / target["params"] - 1)
    off_d = np.abs(points.tokens / target["tokens"] - 1)
    return np.flatnonzero((off_n < SAME_SIZE) & (off_d < SAME_SIZE))


def name_targets(points: Points, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records with the name of the run that each predicted, or its size if no run matches."""
    named = []
    for record in records:
        target = record["target"]
        rows = matching_rows(points, target)
        known = len(rows) and points.run[rows[0]] not in record["points"]["runs"]
        size = f"{target['params']:.3g} parameters on {target['tokens']:.3g} tokens"
        run = str(points.run[rows[0]]) if known else target["run"] or size
        named.append(record | {"target": target | {"run": run}})
    return named


def write_prediction(
    path: str | Path,
    points: Points,
    target: dict[str, Any],
    settings: Settings = DEFAULTS,
    earlier: Sequence[Path] = (),
) -> dict[str, Any]:
    """Predicts the run `target` (run, params, tokens, flops) from the points that are not held
    out.

    Returns the record with the "path" of its file. Files are never changed. If `path` or one of
    the paths `earlier` has a record for the same points and target, that record is returned,
    whatever its settings, and "kept" is True. If `path` has a record for other points or another
    target, the new record goes to prediction-2.json beside it, and so on. Raises ValueError if the
    points do not support a prediction.
    """
    path, kept = as_path(path), points.select(~points.holdout)
    flops = float(target.get("flops") or 6 * target["params"] * target["tokens"])
    wanted = {
        "run": target.get("run"),
        "params": float(target["params"]),
        "tokens": float(target["tokens"]),
        "flops": flops,
    }
    law = settings.fitted_law
    if law.response != "loss":
        raise ValueError(
            f"law={law.name} describes {law.response}, but predictions are of the loss; use a law "
            "of the loss, such as law=parametric"
        )
    digest = sha256(kept)

    def known(paths: Sequence[Path]) -> dict[str, Any] | None:
        same = (digest, wanted)
        records = read_predictions(paths)
        return next((r for r in records if (r["points"]["sha256"], r["target"]) == same), None)

    if there := known([path, *earlier]):
        return there | {"kept": True}
    fitted_to = fitted_rows(kept, law)
    parametric = fit_parametric(fitted_to, settings)
    constants = describe_parametric(parametric)
    constants.pop("cloud")
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": wanted,
        "loss": parametric.predict({k: wanted[k] for k in ("params", "tokens")}, settings.seed),
        "frontier": frontier_value(isoflop(fitted_to, settings.draws, settings.seed), flops),
        "level": LEVEL,
        "settings": {name: getattr(settings, name) for name in SETTINGS},
        "law": constants,
        "points": {"n": len(kept), "sha256": digest, "runs": sorted({str(r) for r in kept.run})},
        "extrapolation": extrapolation(kept, flops),
    }
    free = path
    number = 2
    while not create(free, json.dumps(record, indent=2) + "\n"):
        if there := known([path]):  # another sweep of the folder has made it meanwhile
            return there | {"kept": True}
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return record | {"path": str(free), "kept": False}


def refuse_other_settings(record: dict[str, Any], settings: Settings) -> None:
    """Raises ValueError if a record was made with other settings. Predictions of an older version
    do not record their draws and seed, which are then not compared.
    """
    law = record["law"]
    older = {"law": law.get("name", "parametric"), "objective": law["loss"], "delta": law["delta"]}
    if law["delta"] == ABSOLUTE_DELTAS[-1]:  # the last stage of objective=absolute
        older = {"law": older["law"], "objective": "absolute"}
    for name, recorded in record.get("settings", older).items():
        if (given := getattr(settings, name)) != recorded:
            raise ValueError(
                f"{name}={given} differs from {name}={recorded} of the prediction in "
                f"{record['path']}, which never changes; give --{name}={recorded}, or another file "
                "with --out"
            )


def read_predictions(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The predictions at these paths and in the numbered files beside them (NAME-2.json, …),
    oldest first, each with its "path".
    """
    records = []
    for path in (file for base in paths for file in numbered_files(base)):
        try:
            record = read_object(path)
            if missing := [key for key in ("made", "target", "points") if key not in record]:
                raise ValueError(f"it lacks {', '.join(missing)}")
            records.append(record | {"path": str(path)})
        except ValueError as error:
            raise ValueError(f"{path} is not a prediction ({error}); move it elsewhere") from None
    # Predictions made in the same second are ordered by their number.
    return sorted(records, key=lambda record: (record["made"], len(record["path"]), record["path"]))


def numbered_files(path: Path) -> list[Path]:
    """The existing files NAME.json and NAME-DIGITS.json for a path NAME.json, in order of name."""
    name = re.compile(rf"{re.escape(path.stem)}(-\d+)?{re.escape(path.suffix)}")
    near = path.parent.glob(f"{glob.escape(path.stem)}*{glob.escape(path.suffix)}")
    return sorted(file for file in near if name.fullmatch(file.name))
