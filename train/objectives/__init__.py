"""The objectives: what is minimised and what is measured, as pure functions.

An objective is a module with the functions of `Objective`. The step, the loop, evaluation, records
and compilation know it through these alone.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from model.families import Family
from train.objectives import next_token
from train.objectives.metrics import Metric

Sums = dict[str, tuple[jax.Array, jax.Array]]
"""By metric: (sum over the batch, sum of the weights that divide it). "loss" is always there."""

Metrics = Mapping[str, Metric]


class Objective(Protocol):
    """The interface of a module in OBJECTIVES. `cfg` is the StepConfig: `cfg.model` is the family's
    Config and `cfg.loss` what `configure` returned. `frozen` maps names to parameters that are read
    and never updated. Optional:

    `FROZEN`: name → dotted config key that holds a run or a folder of Hugging Face weights.
    `rollout(model, params, frozen, cfg, batch, key) -> batch`: makes the batch of a step from a
    batch of data and the current parameters, under jit. Without it batches are prefetched."""

    FIELDS: tuple[str, ...]  # the fields of a batch that it needs beside the model's inputs
    NEEDS: tuple[str, ...]  # the functions of a family that it calls
    TRAINED: tuple[str, ...]  # the names in the Sums of `loss`, "loss" first
    METRICS: Metrics  # of `evaluate`'s sums; "loss" is always there

    def configure(self, config: Any) -> Any:
        """The static part of a resolved config that the loss reads, hashable; ValueError names a
        key that does not fit."""

    def loss(
        self, model: Family, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
    ) -> tuple[jax.Array, Sums]:
        """(the sum over the batch that is minimised, Sums). The gradient is divided by the weights
        of "loss", summed over all micro-batches and devices."""

    def evaluate(
        self, model: Family, params: dict, frozen: dict, cfg: Any, batch: dict
    ) -> dict[str, jax.Array]:
        """Sums over each row [B] that METRICS refer to, without dropout."""


OBJECTIVES: dict[str, Objective] = {"next_token": next_token}


def find(name: str) -> Objective:
    """The objective of this name; ValueError lists the known ones."""
    if name not in OBJECTIVES:
        raise ValueError(f"objective.name={name!r} is unknown; use one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
