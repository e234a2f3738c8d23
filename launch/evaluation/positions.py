"""The loss by position in the context of the best large run of a ladder: Kaplan et al. 2020,
figure 7."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from launch.evaluation import tally
from launch.evaluation.counted_baseline import Unavailable, training_data
from launch.evaluation.scored_model import open_model
from launch.evaluation.scoring import of_validation
from launch.files import read_json
from train.objectives.metrics import Metric

FAR = 7  # the bin of positions 128 to 255, beyond which recurrent models were seen to gain little
PER_ROW = Metric("nats/token", of="gain", per="rows")


def by_position(name: str, folder: Path, advance: Callable[[float], None]) -> dict[str, Any]:
    """The losses of a ladder's run on its own validation windows: ladder, run, params, context,
    counted, bins (first, last, tokens, loss, se) and `gain`, the loss at positions 64 to 127 minus
    that at 128 to 255 with its standard error, paired by window; None for shorter contexts.

    ValueError or FileNotFoundError if the run or its text cannot be read.
    """
    run = representative(folder)
    model = open_model(run)
    try:
        dataset = training_data(model).for_run(model.config)
    except Unavailable as reason:
        raise ValueError(f"{run}: {reason}") from reason
    scored, _ = of_validation(model, None, dataset, advance)
    return {
        "ladder": name,
        "run": run.name,
        "params": sum((read_json(run / "result.json")["params"] or {}).values()),
        "context": model.cfg.context_length,
        "counted": model.counted,
        "bins": tally.by_position(scored),
        "gain": _gain(scored),
    }


def representative(folder: Path) -> Path:
    """The run with the lowest loss among those with the most compute, or of all counted ones;
    held-out runs count. FileNotFoundError if the folder has no finished run."""
    done = []
    for path in sorted(folder.glob("*/result.json")):
        result = read_json(path)
        if result.get("status") == "done":
            flops = 0.0 if result.get("counted") else (result.get("flops") or {}).get("6nd", 0.0)
            done.append((flops, result["eval_loss"], path.parent))
    if not done:
        raise FileNotFoundError(f"{folder} has no finished run; run its sweep again")
    most = max(flops for flops, _, _ in done)
    return min((loss, path) for flops, loss, path in done if flops >= 0.9 * most)[1]


def _gain(scored: tally.Tally) -> dict[str, float] | None:
    nats, tokens = scored.by_bin()
    whole = tokens[:, FAR] >= 2**FAR
    if not whole.any():
        return None
    loss = nats[whole] / np.maximum(tokens[whole], 1)
    rows = {"gain": loss[:, FAR - 1] - loss[:, FAR], "rows": np.ones(int(whole.sum()))}
    value, error = PER_ROW(rows)
    return {"value": value, "se": math.nan if error is None else error}
