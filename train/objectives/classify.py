"""The objective of classification: the cross-entropy of the label of each text, from its pooled
state (Devlin et al. 2019, section 4.1)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model import classes
from model.families import Trained
from train.objectives.cross_entropy import cross_entropy, training_loss
from train.objectives.metrics import Metric
from train.objectives.refusals import refuse_settings

FIELDS = ("tokens", "segments", "label")
NEEDS = ("pooled",)
TRAINED = ("loss",)
METRICS = {
    "loss": Metric(
        "nats/label", of="nats", per="labels"
    ),  # no floor: few labels are learnt by heart
    "accuracy": Metric("share of labels", of="right", per="labels", better="higher"),
}


@dataclass(frozen=True)
class Config:
    """The setting of the config section `train` that the loss reads."""

    label_smoothing: float = 0.0


def configure(config: Any) -> Config:
    """The Config of a resolved config; ValueError for a model without classes, and for settings of
    other losses."""
    if not config.model.get("n_classes"):
        raise ValueError(
            f"model.n_classes=0, but objective.name={config.objective.name!r} trains the head of "
            "the classes; give --config.model.n_classes=N"
        )
    refuse_settings(config, "z_loss", "loss_chunk")
    return Config(config.train.label_smoothing)


def scores(
    model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """(logits [B, C], labels [B]); labels below 0 do not count."""
    return classes.logits(params, model.pooled(cfg.model, params, batch, key)), batch["label"]


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The training loss, and the plain cross-entropy as a metric, both summed over the batch."""
    return summed_loss(*scores(model, params, cfg, batch, key), cfg.loss.label_smoothing)


def summed_loss(
    logits: jax.Array, labels: jax.Array, label_smoothing: float
) -> tuple[jax.Array, dict]:
    """`loss` from logits [..., C] and labels [...]."""
    w = (labels >= 0).astype(jnp.float32)
    loss, nll = training_loss(logits, jnp.maximum(labels, 0), 0.0, label_smoothing)
    return (loss * w).sum(), {"loss": ((nll * w).sum(), w.sum())}


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """Nats, right predictions and labels of each row [B]."""
    return row_sums(*scores(model, params, cfg, batch, None))


def row_sums(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """`evaluate` from logits [B, ..., C] and labels [B, ...]."""
    w = (labels >= 0).astype(jnp.float32)
    nll, _ = cross_entropy(logits, jnp.maximum(labels, 0))
    sums = {"nats": nll * w, "right": (logits.argmax(-1) == labels) * w, "labels": w}
    return {name: x.reshape(len(x), -1).sum(-1) for name, x in sums.items()}
