"""The objective of tagging: the cross-entropy of the label of each word, from the state of one of
its tokens (Devlin et al. 2019, section 5.3)."""

from typing import Any

import jax

from model import classes
from model.families import Trained
from train.objectives import classify
from train.objectives.classify import METRICS as METRICS
from train.objectives.classify import TRAINED as TRAINED
from train.objectives.classify import configure as configure

FIELDS = ("tokens", "segments", "labels")
NEEDS = ("hidden", "pooled")  # what offers `pooled` has a head of classes


def scores(
    model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """(logits [B, T, C], labels [B, T]); labels below 0 do not count."""
    x_BTD = model.hidden(cfg.model, params, batch, key)
    return classes.logits(params, x_BTD), batch["labels"]


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The training loss, and the plain cross-entropy as a metric, both summed over the batch."""
    return classify.summed_loss(*scores(model, params, cfg, batch, key), cfg.loss.label_smoothing)


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """Nats, right predictions and labels of each row [B]."""
    return classify.row_sums(*scores(model, params, cfg, batch, None))
