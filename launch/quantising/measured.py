"""The loss that quantising costs, paired by sequence, and the speed and the size of the result."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from launch.evaluation.counted_baseline import Unavailable, training_data
from launch.evaluation.scored_model import ScoredModel, packing_of
from model import families
from model.generation import sample
from model.generation.samplers import Sampler
from train.objectives.metrics import ratio

PROMPT = 8  # tokens before those that are timed


class NoText(ValueError):
    """Raised where the text to measure on is missing."""


@dataclass(frozen=True)
class Texts:
    """Validation batches of a run, and batches of its training text as `model.quantised` reads."""

    validation: list[dict[str, np.ndarray]]
    calibration: list[dict[str, np.ndarray]]


def texts(model: ScoredModel, sequences: int, calibration: int, seed: int) -> Texts:
    """The run's validation set, at most `sequences` rows (0: all), and `calibration` rows of
    training batches. NoText if its text is missing."""
    try:
        dataset = training_data(model).for_run(model.config)
    except Unavailable as reason:
        raise NoText(f"run={model.run}: {reason}, so no loss can be measured") from None
    chosen, rows = [], 0
    for batch in dataset.examples("validation"):
        if sequences and rows >= sequences:
            break
        left = sequences - rows if sequences else len(batch["tokens"])
        chosen.append({name: array[:left] for name, array in batch.items()})
        rows += len(chosen[-1]["tokens"])
    found: list[dict[str, np.ndarray]] = []
    while missing := calibration - sum(len(batch["tokens"]) for batch in found):
        batch = dataset.batch("train", seed, len(found))
        read = {"tokens": batch["tokens"]} | packing_of(batch)
        found.append({name: array[:missing] for name, array in read.items()})
    return Texts(chosen, found)


def losses(
    model: ScoredModel,
    params: dict,
    validation: list[dict[str, np.ndarray]],
    advance: Callable[[float], None] = lambda share: None,
) -> np.ndarray:
    """(nats, tokens) of each validation sequence [E, 2] under `params`."""
    rows = []
    for number, batch in enumerate(validation):
        nats_BT = _nats(model, params, batch)
        weights_BT = batch["weights"]
        kept = weights_BT.any(axis=1)
        both = np.stack([(nats_BT * weights_BT).sum(1), weights_BT.sum(1)], axis=1)
        rows.append(both[kept])
        advance((number + 1) / len(validation))
    return np.concatenate(rows)


def _nats(model: ScoredModel, params: dict, batch: dict[str, np.ndarray]) -> np.ndarray:
    fitted = replace(model, fitted=params)
    return fitted.nats(batch["tokens"], batch["targets"], packing_of(batch))


def compared(before: np.ndarray, after: np.ndarray) -> dict[str, float | None]:
    """The losses of both models in nats per token, and the difference with its standard error over
    sequences, which both have read. The errors are None for a single sequence."""
    loss, loss_se = ratio(before[:, 0], before[:, 1])
    quantised, quantised_se = ratio(after[:, 0], after[:, 1])
    change, change_se = ratio(after[:, 0] - before[:, 0], before[:, 1])
    return {
        "loss_before": loss,
        "loss_before_se": loss_se,
        "loss": quantised,
        "loss_se": quantised_se,
        "degradation": change,
        "degradation_se": change_se,
    }


def decode_seconds(
    model: ScoredModel, sets: dict[str, dict], tokens: int, repeats: int = 5
) -> dict[str, float]:
    """Median seconds that each set of parameters takes to continue one prompt by `tokens` tokens.
    The sets take turns; the first turn compiles and is not counted."""
    reader = families.reader(model.family)
    prompt = [int(i) for i in model.start] + [0] * (PROMPT - len(model.start))
    ready = {name: reader.prepare(params, model.cfg) for name, params in sets.items()}
    found: dict[str, list[float]] = {name: [] for name in sets}
    sampler = Sampler(temperature=0.0)
    for turn in range(repeats + 1):
        for name, params in ready.items():
            begun = time.perf_counter()
            for piece in sample.stream(
                params, model.cfg, [prompt], tokens, sampler, n=1, seed=0, chunk=tokens,
                reader=reader,
            ):  # fmt: skip
                np.asarray(piece.tokens_BN)
            if turn:
                found[name].append(time.perf_counter() - begun)
    return {name: float(np.median(seconds)) for name, seconds in found.items()}
