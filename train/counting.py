"""Runs the trial of a counted model: one pass over the text, an evaluation and a saved model."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.buckets.lease import Lease, Unlocked
from data.kinds import Dataset
from model import families
from train import objectives
from train.checkpoint import finished, newest_read, opened, read_meta, writing_files
from train.evaluate import Evaluation
from train.metrics import MetricsLog
from train.objectives.metrics import measure
from train.record import evaluation_columns
from train.watch import Stop

MODEL = "model.npz"


class Count:
    """One counted trial in a folder. Has the attributes of `record.Record` that callers read.

    checkpoints/1/model.npz holds the model. A killed trial starts over, unless the model is already
    saved; then it continues with the evaluation.
    """

    def __init__(
        self,
        config: Any,
        dataset: Dataset,
        workdir: Path,
        say: Callable[[str], None] = print,
        lease: Lease | None = None,
    ):
        """`config` is resolved, and `dataset` sized for it. `lease` is the lock of the folder."""
        self.family, self.cfg = families.read(config.model)
        self.config, self.dataset, self.workdir, self.say = config, dataset, workdir, say
        self.lease = lease or Unlocked()
        self.metrics = objectives.find(config.objective.name).METRICS
        self.step, self.seconds, self.compile_seconds, self.peak = 1, 0.0, 0.0, None
        self.origin = {"branched_from": None, "branched_at": 0}
        self.params: dict[str, int] = {}

    def train(self, stop: Stop) -> str:
        """Counts, saves and evaluates: 'done', or 'preempted' if a stop was requested before."""
        if stop.requested:
            return "preempted"
        begun = time.perf_counter()
        model = self._restored()
        if model is None:
            self.say(f"{self.config.name}: counting {self.dataset.n_tokens('train'):,} tokens")
            model = self.family.fit(self.cfg, self.dataset.texts("train"))
            self.seconds = time.perf_counter() - begun
            self._save(model)
        self.params = self.family.count(model)
        evaluation = evaluate(self.family, model, self.dataset, self.metrics)
        log = MetricsLog(self.workdir, self.config.log.tensorboard, lease=self.lease)
        log.rewind(0)
        tokens = self.dataset.n_tokens("train")
        log.write({"step": 1, "tokens": tokens} | evaluation_columns(evaluation))
        log.close()
        loss, n = evaluation["loss"][0], sum(self.params.values())
        self.say(f"{self.config.name}: {n:,} parameters, eval {loss:.4f}")
        return "done"

    def _restored(self) -> Any:
        read = newest_read(finished(self.workdir / "checkpoints"), self._load, self.say)
        if read is None:
            return None
        self.seconds = read_meta(read[0]).get("seconds", 0.0)
        return read[1]

    def _load(self, path: Path) -> Any:
        with opened(path) as folder, open(folder / MODEL, "rb") as file:
            return self.family.load(file)

    def _save(self, model: Any) -> None:
        meta = {"step": 1, "seconds": self.seconds, "config": json.loads(self.config.to_json())}
        with writing_files(self.workdir / "checkpoints" / "1", meta, self.lease) as folder:
            with open(folder / MODEL, "wb") as file:
                self.family.save(model, file)
                file.flush()
                os.fsync(file.fileno())


def evaluate(
    family: families.Counted, model: Any, dataset: Dataset, metrics: objectives.Metrics
) -> Evaluation:
    """The metrics on the windows of `dataset.examples`, or on whole texts for a family that has
    `rows` in place of `nats`."""
    if hasattr(family, "rows"):
        return measure(metrics, family.rows(model, dataset.texts("validation")))
    nats_E = window_nats(family, model, dataset).sum(1)
    examples = list(dataset.examples("validation"))
    weights_E = np.concatenate([batch["weights"].sum(-1) for batch in examples])[: len(nats_E)]
    rows = {"nats": nats_E, "weights": weights_E}
    if all("bytes" in batch for batch in examples):
        rows["bytes"] = np.concatenate([batch["bytes"] for batch in examples])[: len(nats_E)]
    return measure(metrics, rows)


def window_nats(family: families.Counted, model: Any, dataset: Dataset) -> np.ndarray:
    """-log p of each target [E, T] of the windows of `dataset.examples`. The context of a window's
    first tokens includes the tokens before the window, which a trained model does not see."""
    nats = []
    texts, windows = dataset.texts("validation"), dataset.windows("validation")
    for text, starts in zip(texts, windows, strict=True):
        inside = 1 + np.arange(dataset.length)
        nats.append(family.nats(model, text)[starts[:, None] + inside])
    return np.concatenate(nats)
