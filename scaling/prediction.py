"""This file writes a prediction down before its run starts, and never changes it afterwards."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scaling.analysis import (
    DEFAULTS,
    LEVEL,
    Settings,
    describe_parametric,
    fit_parametric,
    frontier_value,
)
from scaling.cautions import extrapolation
from scaling.files import create
from scaling.isoflop import isoflop
from scaling.table import Points, sha256


def write_prediction(
    path: str | Path, points: Points, target: dict[str, Any], settings: Settings = DEFAULTS
) -> dict[str, Any]:
    """Predicts the run `target` (run, params, tokens, flops) from the points that are not held
    out.

    Returns the record, which lies at its "path". Written once: asked again with the same points
    and target it returns the record that is there; with others it writes prediction-2.json beside
    it, and so on, so that no prediction is ever lost. ValueError where the points cannot carry
    one.
    """
    path, kept = Path(path), points.select(~points.holdout)
    flops = float(target.get("flops") or 6 * target["params"] * target["tokens"])
    wanted = {
        "run": target.get("run"),
        "params": float(target["params"]),
        "tokens": float(target["tokens"]),
        "flops": flops,
    }
    digest = sha256(kept)
    for known in read_predictions(path.parent, path.stem):
        if known["points"]["sha256"] == digest and known["target"] == wanted:
            return known
    found = fit_parametric(kept, settings)
    constants = describe_parametric(found)
    constants.pop("cloud")
    record = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "target": wanted,
        "loss": found.predict(wanted["params"], wanted["tokens"], settings.seed),
        "frontier": frontier_value(isoflop(kept, settings.draws, settings.seed), flops),
        "level": LEVEL,
        "law": constants,
        "points": {"n": len(kept), "sha256": digest, "runs": sorted({str(r) for r in kept.run})},
        "extrapolation": extrapolation(kept, flops),
    }
    free = path
    number = 2
    while not create(free, json.dumps(record, indent=2) + "\n"):
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return record | {"path": str(free)}


def read_predictions(folder: str | Path, stem: str = "prediction") -> list[dict[str, Any]]:
    """Every prediction of a folder, in the order of making, each with its "path"."""
    found = []
    for path in sorted(Path(folder).glob(f"{stem}*.json")):
        try:
            record = json.loads(path.read_text())
            found.append(record | {"path": str(path), "made": record["made"]})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no prediction ({error}); move it elsewhere") from None
    # Those of one second by their number: prediction.json, prediction-2.json, …
    return sorted(found, key=lambda record: (record["made"], len(record["path"]), record["path"]))
