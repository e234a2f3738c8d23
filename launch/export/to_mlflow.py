"""Runs for MLflow, in a SQLite file that `mlflow ui` reads."""

from collections.abc import Sequence
from pathlib import Path

from launch.export.runs import Run

STATES = {"done": "FINISHED", "stopped": "KILLED", "unfinished": "RUNNING"}  # others: FAILED
KEY = "isoflop.key"  # the tag that says which run it is
MOST = {"metrics": 1000, "params": 100}  # in one request
LONGEST = 500  # characters of a parameter's value that every version of MLflow takes


def write(runs: Sequence[Run], project: str, out: Path) -> str:
    """One run each in the experiment `project` of `out`/mlflow.db."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{(out / 'mlflow.db').resolve()}"
    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(project)
    number = (
        client.create_experiment(project, artifact_location=(out / "artifacts").resolve().as_uri())
        if experiment is None
        else experiment.experiment_id
    )
    for run in runs:
        key = run.key.replace("'", "")
        for earlier in client.search_runs([number], f"tags.`{KEY}` = '{key}'"):
            client.delete_run(earlier.info.run_id)
        begin = run.clock({"seconds": 0.0})
        numbers = {k: v for k, v in run.summary.items() if not isinstance(v, str)}
        metrics = [
            Metric(name, float(value), int(1000 * run.clock(row)), int(row["step"]))
            for row in run.curve
            for name, value in row.items()
            if name != "step"
        ]
        last = int(run.curve[-1]["step"]) if run.curve else 0
        known = {name for row in run.curve for name in row}
        metrics += [
            Metric(name, float(value), int(1000 * run.time), last)
            for name, value in numbers.items()
            if name not in known
        ]
        params = [Param(name, str(value)[:LONGEST]) for name, value in run.settings.items()]
        tags = {KEY: key, "sweep": run.sweep, "status": str(run.summary["status"])}
        made = client.create_run(number, int(1000 * begin), tags, run_name=run.name)
        for kind, values in (("params", params), ("metrics", metrics)):
            for first in range(0, len(values), MOST[kind]):
                part = values[first : first + MOST[kind]]
                client.log_batch(made.info.run_id, **{kind: part})
        state = STATES.get(str(run.summary["status"]), "FAILED")
        client.set_terminated(made.info.run_id, state, int(1000 * run.time))
    return f"{out / 'mlflow.db'}; look at it: mlflow ui --backend-store-uri {store}"
