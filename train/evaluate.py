"""This file measures a model on the fixed validation set, with a standard error."""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

from data.loader import eval_batches
from data.store import Dataset
from train import sharding
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
        self._bytes = float((dataset.token_bytes[stacked["targets"]] * stacked["weights"]).sum())
        self._batches = jax.device_put(stacked, sharding.batch_sharding(mesh, leading=1))
        self._cfg = cfg

    def __call__(self, params: dict) -> Evaluation:
        return summarise(*eval_sums(self._cfg, params, self._batches), self._bytes)


def summarise(nats_EB: jax.Array, weights_EB: jax.Array, text_bytes: float) -> Evaluation:
    """Loss over all tokens; the standard error takes sequences as the independent units."""
    nats, weights = (np.asarray(x, np.float64).ravel() for x in (nats_EB, weights_EB))
    nats, weights = nats[weights > 0], weights[weights > 0]
    loss, n = nats.sum() / weights.sum(), len(nats)
    # Ratio estimator: sequences may hold different numbers of tokens (Cochran 1977, eq. 6.13).
    residuals = nats - loss * weights
    variance = np.square(residuals).sum() / (n - 1) / n if n > 1 else None
    se = None if variance is None else math.sqrt(variance) / float(weights.mean())
    return Evaluation(float(loss), se, float(nats.sum() / math.log(2) / text_bytes))
