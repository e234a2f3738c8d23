"""The objective of GloVe: weighted least squares on the logarithms of co-occurrence counts.

Pennington et al. 2014, eq. 8 and 9, with f(x) = min(1, x / x_max)^α:

    J = Σ f(X_ij) (w_i · w'_j + b_i + b'_j - log X_ij)²

The loss is the mean over the entries that occur, J divided by their number.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model.families import Trained
from train.objectives.metrics import Metric
from train.objectives.words.per_term import loss_of, rows_of

FIELDS = ("row", "column", "count")
NEEDS = ("log_counts",)
TRAINED = ("loss",)
TASK = ("objective.x_max", "objective.alpha")
METRICS = {"loss": Metric("squared error/entry", of="error", per="weights", floor=0.0)}


@dataclass(frozen=True)
class Config:
    """The keys of the objective."""

    x_max: float = 100.0  # counts from here on have the weight 1
    alpha: float = 0.75  # power of smaller counts


def configure(config: Any) -> Config:
    """The Config of a resolved config; ValueError for an invalid weight."""
    made = Config(config.objective.x_max, config.objective.alpha)
    if not made.x_max > 0:
        raise ValueError(f"objective.x_max={made.x_max} must be above 0; the paper uses 100")
    if not made.alpha >= 0:
        raise ValueError(f"objective.alpha={made.alpha} must be 0 or more; the paper uses 0.75")
    return made


def _errors(
    model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The terms of J [B, T], and whether each entry occurs [B, T]; a count of 0 is padding."""
    x_BT = batch["count"]
    occurs_BT = (x_BT > 0).astype(jnp.float32)
    difference_BT = model.log_counts(cfg.model, params, batch) - jnp.log(jnp.maximum(x_BT, 1e-30))
    weight_BT = occurs_BT * jnp.minimum(1.0, x_BT / cfg.loss.x_max) ** cfg.loss.alpha
    return weight_BT * jnp.square(difference_BT), occurs_BT


loss = loss_of(_errors)
evaluate = rows_of(_errors, "error")
