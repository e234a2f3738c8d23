"""What the page of post-training shows of each run: what it was trained on, pass@k, its curves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data import tasks
from data.chat import demonstrations
from launch.benchmarks import answerer, checked
from launch.files import read_json
from train import metrics

CURVES = ("reward", "kl", "eval_reward", "eval_kl", "eval_accuracy", "loss")
KEPT = ("prompt", "answer")
Detail = Callable[[str, float], None]


def task_of(runs: Sequence[Path], given: str = "") -> tuple[str, int]:
    """(task, size) of the first run that trained on the rewards of a task, or of the task that is
    given. ValueError if none did, or for a task that is not in TASKS."""
    if given:
        tasks.find(given, "task")
    for run in runs:
        data = config_of(run)["data"]
        if data.get("kind") == "tasks" and data.get("task") and not data.get("corpora"):
            if not given or data["task"] == given:
                return data["task"], data.get("size", 0)
    if not given:
        raise ValueError("no run was trained on the rewards of a task; give --task=NAME")
    return given, 0


def held_out(runs: Sequence[Path], task: str) -> float | None:
    """The share of the task's prompts that no run trained on: the smallest among the runs that
    trained on the task, since a larger share holds the prompts of a smaller one. 0: a run held out
    none. None: no run trained on the task. Plain text does not count."""
    found = []
    for run in runs:
        data = config_of(run)["data"]
        corpora = data.get("corpora") or ()
        corpora = (corpora,) if isinstance(corpora, str) else corpora
        named = any(spec.split(":")[:2] == [demonstrations.SCHEME, task] for spec in corpora)
        if named or (data.get("kind") == "tasks" and data.get("task") == task and not corpora):
            share = data.get("validation")
            found.append(share if isinstance(share, float) and 0 < share < 1 else 0.0)
    return min(found, default=None)


def config_of(run: Path) -> dict[str, Any]:
    """The config of a run; FileNotFoundError without one."""
    config = read_json(run / "config.json")
    if not isinstance(config, dict):
        raise FileNotFoundError(f"{run} holds no config.json; name folders of runs")
    return config


def names_of(runs: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    """The names of the runs, by default those of their folders. ValueError unless they differ."""
    found = list(names or (run.name for run in runs))
    if len(found) != len(runs) or len(set(found)) < len(found):
        raise ValueError(
            f"names={','.join(found)}: {len(runs)} runs take {len(runs)} different names"
        )
    return found


def gathered(
    runs: Sequence[Path], names: Sequence[str], task: str, how: checked.How, detail: Detail
) -> list[dict[str, Any]]:
    """One entry a run, in order. All answer the same prompts: those that the share
    `how.validation` holds out."""
    asked = checked.questions(task, "", how)
    found = []
    for run, name in zip(runs, names, strict=True):
        drawn = answerer.open_answerer(run, "", [])
        scored = checked.evaluate(drawn, asked, how, lambda share, name=name: detail(name, share))
        found.append(entry(run, name, scored))
    return found


def entry(run: Path, name: str, scored: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of one run and its answers."""
    config, result = config_of(run), read_json(run / "result.json") or {}
    objective = config.get("objective", {}).get("name", "next_token")
    return {
        "name": name,
        "run": str(run),
        "objective": objective,
        "data": config["data"].get("kind", "text"),
        "steps": result.get("steps"),
        "seconds": result.get("seconds"),
        "tokens_per_second": result.get("tokens_per_second"),
        "rollout_tokens_per_second": result.get("rollout_tokens_per_second"),
        "update_tokens_per_second": result.get("update_tokens_per_second"),
        "status": result.get("status", "unfinished"),
        "prompts": scored["prompts"],
        "pass_at_k": scored["pass_at_k"],
        "score": scored["score"],
        "curve": curve(run),
        "answers": [
            {key: one[key] for key in KEPT}
            | {"response": one["responses"][0], "right": one["scores"][0] == 1}
            for one in scored["responses"]
        ],
    }


def curve(run: Path) -> list[dict[str, float]]:
    """The rows of metrics.jsonl with the quantities that the page draws."""
    found = []
    for row in metrics.read(run / "metrics.jsonl"):
        kept = {key: row[key] for key in CURVES if isinstance(row.get(key), int | float)}
        if kept:
            found.append({"step": row["step"]} | kept)
    return found
