"""What the page of post-training shows of each run: what it was trained on, pass@k, its curves."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch.benchmarks import answerer, checked
from launch.files import read_json
from train import metrics

CURVES = ("reward", "kl", "eval_reward", "eval_kl", "eval_accuracy", "loss")
KEPT = ("prompt", "answer")
Detail = Callable[[str, float], None]


def task_of(runs: Sequence[Path]) -> tuple[str, int]:
    """(task, size) of the first run that trained on the rewards of a task. ValueError if none."""
    for run in runs:
        data = config_of(run)["data"]
        if data.get("kind") == "tasks" and data.get("task") and not data.get("corpora"):
            return data["task"], data.get("size", 0)
    raise ValueError("no run was trained on the rewards of a task; give --task=NAME")


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
    """One entry a run, in order. All answer the same prompts, which the first run with a share of
    validation prompts held out of training."""
    shares = [config_of(run)["data"].get("validation") for run in runs]
    share = next((s for s in reversed(shares) if isinstance(s, float) and 0 < s < 1), 0.1)
    asked = checked.questions(task, "", replace(how, validation=share))
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
