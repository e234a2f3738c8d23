"""The loss by position in the context of the best large run of a ladder: Kaplan et al. 2020,
figure 7."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from launch.evaluation import tally
from launch.evaluation.counted_baseline import Unavailable, training_data
from launch.evaluation.scored_model import open_model
from launch.evaluation.scoring import of_validation
from launch.files import AGAIN, read_json
from train.objectives.metrics import Metric

PER_ROW = Metric("nats/token", of="gain", per="rows")


@dataclass(frozen=True)
class Scored:
    """A ladder's representative run with its losses by window and position."""

    about: dict[str, Any]  # what `by_position` says
    dataset: str  # hash of the validation text
    windows: np.ndarray  # corpus and first token of each window [E, 2]
    nats: np.ndarray  # by window and bin [E, BINS]
    tokens: np.ndarray  # the same


def by_position(name: str, folder: Path, advance: Callable[[float], None]) -> Scored:
    """The losses of a ladder's run on its validation windows. `about` has ladder, run, params,
    context, counted, `bins` (first, last, tokens, loss, se) that are whole, and `gain`: how much
    lower the loss is in the last of them than in the one before (value, se paired by window, and
    the positions `since` and `until` of the two); None if there is only one.

    ValueError or FileNotFoundError if the run or its text cannot be read.
    """
    run = representative(folder)
    model = open_model(run)
    try:
        dataset = training_data(model).for_run(model.config)
    except Unavailable as reason:
        raise ValueError(f"{run}: {reason}") from reason
    scored, _ = of_validation(model, None, dataset, advance)
    nats, tokens = scored.by_bin()
    about = {
        "ladder": name,
        "run": run.name,
        "params": sum((read_json(run / "result.json", AGAIN)["params"] or {}).values()),
        "context": model.cfg.context_length,
        "counted": model.counted,
        "bins": [one for one in tally.by_position(scored) if one["last"] == 2 * one["first"] - 1],
        "gain": _gain(scored),
    }
    return Scored(about, dataset.hash, windows_of(dataset, len(nats)), nats, tokens)


def windows_of(dataset: Any, count: int) -> np.ndarray:
    """The corpus and the first token of each validation window [E, 2], in the order in which they
    are scored; their numbers where the data have no running text."""
    starts = dataset.windows("validation") if hasattr(dataset, "windows") else [np.arange(count)]
    corpus = np.repeat(np.arange(len(starts)), [*map(len, starts)])
    return np.stack([corpus, np.concatenate(starts)], axis=1)


def compare_with_first(found: Sequence[Scored]) -> list[dict[str, Any]]:
    """What is known of each run, with `paired`, the windows that both it and the first run were
    scored on, and in each bin `behind`, its loss on them minus that of the first run, and
    `behind_se`, paired by window. Runs without such windows lack `behind`: a model that carries its
    state reads other windows than one that does not."""
    first = found[0]
    for one in found[1:]:
        here, there = common(one, first)
        one.about["paired"] = len(here)
        for part in one.about["bins"] if len(here) else ():
            bin_ = int(np.log2(part["first"]))
            apart = one.nats[here, bin_] - first.nats[there, bin_]
            sums = {"nats": apart, "weights": one.tokens[here, bin_]}
            part["behind"], part["behind_se"] = tally.PER_TOKEN(sums)
    return [one.about for one in found]


def common(one: Scored, other: Scored) -> tuple[np.ndarray, np.ndarray]:
    """The numbers, in each of two runs, of the windows that both were scored on: equal in text,
    first token and length."""
    place = {tuple(window): number for number, window in enumerate(other.windows.tolist())}
    pairs = [
        (number, place[tuple(window)])
        for number, window in enumerate(one.windows.tolist())
        if one.dataset == other.dataset
        and tuple(window) in place
        and np.array_equal(one.tokens[number], other.tokens[place[tuple(window)]])
    ]
    here, there = np.array(pairs, int).reshape(-1, 2).T
    return here, there


def representative(folder: Path) -> Path:
    """The run with the lowest loss among those with the most compute, or of all counted ones;
    held-out runs count. FileNotFoundError if the folder has no finished run."""
    done = []
    for path in sorted(folder.glob("*/result.json")):
        result = read_json(path, AGAIN)
        if result.get("status") == "done":
            flops = 0.0 if result.get("counted") else (result.get("flops") or {}).get("6nd", 0.0)
            done.append((flops, result["eval_loss"], path.parent))
    if not done:
        raise FileNotFoundError(f"{folder} has no finished run; run its sweep again")
    most = max(flops for flops, _, _ in done)
    return min((loss, path) for flops, loss, path in done if flops >= 0.9 * most)[1]


def _gain(scored: tally.Tally) -> dict[str, float] | None:
    nats, tokens = scored.by_bin()
    far = int(np.log2(scored.longest + 1)) - 1
    whole = tokens[:, far] == 2**far
    if far < 1 or not whole.any():
        return None
    near, late = (nats[whole, bin_] / 2**bin_ for bin_ in (far - 1, far))
    value, error = PER_ROW({"gain": near - late, "rows": np.ones(len(near))})
    since, until = [2 ** (far - 1), 2**far - 1], [2**far, 2 ** (far + 1) - 1]
    return {"value": value, "se": error, "since": since, "until": until}
