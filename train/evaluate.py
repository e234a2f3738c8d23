"""This file measures a model on the fixed validation set, with a standard error."""

import math
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from data.kinds.text import eval_batches
from data.store import Dataset
from train.parallel import processes, sharding
from train.step import StepConfig, eval_sums


@dataclass(frozen=True)
class Evaluation:
    """Validation loss in nats/token with its standard error over sequences, and bits/byte."""

    loss: float
    se: float | None  # None of a single sequence
    bits_per_byte: float


class Evaluator:
    """The validation set on the devices, and the compiled program that scores it."""

    def __init__(self, cfg: StepConfig, dataset: Dataset, sequences: int, rows: int, mesh: Mesh):
        """`rows` sequences make one forward pass; ValueError if the split is too small for one."""
        batches = list(eval_batches(dataset, sequences, rows, cfg.model.context_length))
        stacked = {k: np.stack([b[k] for b in batches]) for k in batches[0]}
        bytes_of = dataset.token_bytes[stacked["targets"]] * stacked["weights"]
        self.text_bytes = float(bytes_of.sum())
        # Every process has read every row, for their bytes; its devices get their own.
        where = sharding.batch_sharding(mesh, leading=1)
        self.batches = processes.placed(stacked, np.arange(rows), rows, where)
        self._cfg = cfg

    def __call__(self, params: dict) -> Evaluation:
        sums = eval_sums(self._cfg, params, self.batches)
        return summarise(*processes.on_host(sums), self.text_bytes)


def summarise(nats_EB: np.ndarray, weights_EB: np.ndarray, text_bytes: float) -> Evaluation:
    """Loss over all tokens; the standard error takes sequences as the independent units."""
    nats, weights = (np.asarray(x, np.float64).ravel() for x in (nats_EB, weights_EB))
    nats, weights = nats[weights > 0], weights[weights > 0]
    loss, n = nats.sum() / weights.sum(), len(nats)
    # Ratio estimator: sequences may hold different numbers of tokens (Cochran 1977, eq. 6.13).
    residuals = nats - loss * weights
    variance = np.square(residuals).sum() / (n - 1) / n if n > 1 else None
    se = None if variance is None else math.sqrt(variance) / float(weights.mean())
    return Evaluation(float(loss), se, float(nats.sum() / math.log(2) / text_bytes))
