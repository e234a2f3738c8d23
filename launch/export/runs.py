"""A trial as other people's viewers show runs: its settings, its summary, its curves."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaling.ranking.trials import Trial, read_sweeps
from train import metrics
from train.flatten import flatten

Scalar = bool | int | float | str

# Keys of result.json that are copied to the summary; sums and tables are added below.
SUMMARY = (
    *("status", "eval_loss", "eval_loss_se", "bits_per_byte", "train_loss", "tokens", "steps"),
    *("seconds", "tokens_per_second", "mfu", "epochs_of_data", "device", "devices", "dataset"),
    *("rollout_tokens_per_second", "update_tokens_per_second"),
)


@dataclass(frozen=True)
class Run:
    """One trial. `curve` has the numbers of metrics.jsonl, one row with a "step" for each step that
    was logged; `time` is that of the last row, in seconds since 1970."""

    key: str  # names the run in every export: sweep and trial
    name: str
    sweep: str
    settings: dict[str, Scalar]
    summary: dict[str, Scalar]
    curve: list[dict[str, int | float]] = field(default_factory=list)
    texts: list[dict[str, Any]] = field(default_factory=list)  # rows of samples.jsonl
    time: float = 0.0

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with anything that an export shows."""
        text = json.dumps(asdict(self) | {"time": 0}, sort_keys=True)  # a copied file is no news
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def clock(self, row: dict[str, int | float]) -> float:
        """When a row was written, in seconds since 1970, from the seconds that were trained."""
        last = max((one.get("seconds", 0.0) for one in self.curve), default=0.0)
        return self.time - last + row.get("seconds", last)


def read(folder: Path) -> tuple[list[Run], int]:
    """(the runs of a folder that have started, how many have not); raises what `read_sweeps`
    does."""
    runs, waiting = [], 0
    for sweep in read_sweeps(folder):
        for trial in sweep.trials:
            if trial.status == "waiting":
                waiting += 1
            else:
                runs.append(_run(sweep.name, trial))
    return runs, waiting


def _run(sweep: str, trial: Trial) -> Run:
    file = trial.folder / "metrics.jsonl"
    rows: dict[int, dict[str, int | float]] = {}
    for row in metrics.read(file):
        numbers = {key: value for key, value in row.items() if _is_finite(value)}
        rows.setdefault(row["step"], {}).update(numbers)
    return Run(
        key=f"{sweep}-{trial.id}",
        name=trial.id,
        sweep=sweep,
        settings=_settings(trial),
        summary=_summary(trial),
        curve=[_with_clock(rows, step) for step in sorted(rows)],
        texts=metrics.read(trial.folder / "samples.jsonl"),
        time=file.stat().st_mtime if file.exists() else 0.0,
    )


def _with_clock(rows: dict[int, dict], step: int) -> dict[str, int | float]:
    """A row, with the seconds of the last training row where it is an evaluation's alone."""
    earlier = [rows[s]["seconds"] for s in rows if s <= step and "seconds" in rows[s]]
    return rows[step] | ({"seconds": max(earlier)} if earlier else {})


def _settings(trial: Trial) -> dict[str, Scalar]:
    """The dotted keys of the resolved config, or those of the sweep if the run has no config yet; a
    list is text with commas."""
    try:
        found = flatten(json.loads((trial.folder / "config.json").read_bytes()))
    except (OSError, ValueError):
        found = dict(trial.settings)
    found = {k: v for k, v in found.items() if not k.startswith("code.") and v is not None}
    listed = {k: ",".join(map(str, v)) if isinstance(v, list) else v for k, v in found.items()}
    return {k: v if isinstance(v, Scalar) else json.dumps(v) for k, v in listed.items()}


def _summary(trial: Trial) -> dict[str, Scalar]:
    """The numbers and names in result.json; only the status if the run has no result yet."""
    result = trial.result
    found = {"status": trial.status} | {key: result.get(key) for key in SUMMARY if key in result}
    found |= {f"flops_{name}": value for name, value in (result.get("flops") or {}).items()}
    if result.get("params"):
        found["params"] = trial.params
    for name in result.get("metrics") or {}:
        value, error = trial.metric(name)
        column = metrics.column(name)
        found |= {column: value, f"{column}_se": error}
    return {k: v for k, v in found.items() if isinstance(v, str) or _is_finite(v)}


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
