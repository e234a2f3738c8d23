"""Runs for Weights & Biases, offline: `wandb sync` uploads them."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from launch.export.runs import Run


def write(runs: Sequence[Run], project: str, out: Path) -> str:
    """One offline run each in `out`/wandb, with the key of the run as its id, so that a second
    upload replaces the first."""
    import wandb

    settings = wandb.Settings(
        **{"silent": True, "console": "off", "disable_git": True, "disable_code": True},
        **{"x_disable_stats": True, "x_disable_meta": True},
    )
    for run in runs:
        for earlier in out.glob(f"wandb/offline-run-*-{run.key}"):
            shutil.rmtree(earlier)
        opened = wandb.init(
            **{"id": run.key, "project": project, "group": run.sweep, "name": run.name},
            **{"config": run.settings, "dir": str(out), "mode": "offline", "settings": settings},
        )
        for row in run.curve:
            opened.log({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))
        if run.texts:
            columns = ["step", "tokens", "prompt", "text"]
            cells = [[row.get(name) for name in columns] for row in run.texts]
            opened.log({"samples": wandb.Table(columns=columns, data=cells)})
        opened.summary.update(run.summary)
        opened.finish(exit_code=0 if run.summary["status"] in ("done", "stopped") else 1)
    return f"{out / 'wandb'}; upload them: wandb sync {out}/wandb/offline-run-*"
