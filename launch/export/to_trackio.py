"""Runs for trackio, in its SQLite file of the project; `trackio show` reads it."""

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from launch.export.runs import Run


def write(runs: Sequence[Run], project: str, out: Path) -> str:
    """One run each; trackio has no summary, so it is among the settings, as `summary.NAME`."""
    os.environ["TRACKIO_DIR"] = str(out.resolve())  # read when trackio is imported
    from trackio.sqlite_storage import SQLiteStorage

    project = re.sub(r"[^A-Za-z0-9_-]", "-", project)
    for run in runs:
        SQLiteStorage.delete_run(project, run.name, run_id=run.key)
        numbers = {k: v for k, v in run.summary.items() if not isinstance(v, str)}
        rows = run.curve or [{"step": 0} | numbers]
        SQLiteStorage.bulk_log(
            project=project,
            run=run.name,
            run_id=run.key,
            metrics_list=[{k: v for k, v in row.items() if k != "step"} for row in rows],
            steps=[int(row["step"]) for row in rows],
            timestamps=[datetime.fromtimestamp(run.clock(row), UTC).isoformat() for row in rows],
            config={"_Group": run.sweep}
            | run.settings
            | {f"summary.{name}": value for name, value in run.summary.items()},
        )
    return f"{out}; look at it: TRACKIO_DIR={out} trackio show --project {project}"
