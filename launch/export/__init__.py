"""Where `isoflop export` writes runs to: the table TARGETS.

A target is a module with `write(runs, project, out)`: it writes runs to the folder `out`, in place
of runs with the same keys, and returns a line that says how to look at them. `write` imports its
library and raises ImportError without it. A target with WHOLE = True is given every run each time,
any other those that are new or have changed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from launch.export import to_csv, to_mlflow, to_trackio, to_wandb
from launch.export.runs import Run


class Target(Protocol):
    """The interface of a module in TARGETS."""

    def write(self, runs: Sequence[Run], project: str, out: Path) -> str: ...


TARGETS: dict[str, Target] = {
    "csv": to_csv,
    "mlflow": to_mlflow,
    "trackio": to_trackio,
    "wandb": to_wandb,
}
