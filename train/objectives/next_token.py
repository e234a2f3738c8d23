"""The objective of next-token prediction: the cross-entropy of each token given earlier ones."""

import math
from dataclasses import dataclass
from typing import Any

import jax

from model.families import Trained
from train.objectives import loss_in_chunks
from train.objectives.cross_entropy import cross_entropy, training_loss
from train.objectives.metrics import Metric

FIELDS = ("tokens", "targets", "weights")
NEEDS = ("hidden", "head", "logits")
TRAINED = ("loss",)
METRICS = {
    "loss": Metric("nats/token", of="nats", per="weights", floor=0.0),
    "bits_per_byte": Metric("bits/byte", of="nats", per="bytes", divisor=math.log(2), floor=0.0),
}


@dataclass(frozen=True)
class Config:
    """The settings of the config section `train` that the loss reads."""

    z_loss: float = 0.0
    label_smoothing: float = 0.0
    loss_chunk: int = 0  # tokens of each sequence whose logits exist at one time; 0: all


def configure(config: Any) -> Config:
    """The Config of a resolved config; ValueError for chunks that do not divide a sequence."""
    keys = ("z_loss", "label_smoothing", "loss_chunk")
    loss_in_chunks.require(config.train.loss_chunk, config.model.context_length)
    return Config(**{key: config.train[key] for key in keys})


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The training loss, and the plain cross-entropy as a metric, both summed over the batch."""
    x_BTD = model.hidden(cfg.model, params, batch, key)

    def score(head, x_BTD, targets_BT, w_BT):
        logits_BTV = model.logits(cfg.model, head, x_BTD)
        settings = cfg.loss.z_loss, cfg.loss.label_smoothing
        loss_BT, nll_BT = training_loss(logits_BTV, targets_BT, *settings)
        return (loss_BT * w_BT).sum(), (nll_BT * w_BT).sum()

    scored = model.head(cfg.model, params), x_BTD, batch["targets"], batch["weights"]
    if cfg.loss.loss_chunk:
        axes = model.PARAMETER_AXES
        loss, nll = loss_in_chunks.sums(score, cfg.loss.loss_chunk, axes, *scored)
    else:
        loss, nll = score(*scored)
    return loss, {"loss": (nll, batch["weights"].sum())}


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """Nats, weights and, for text, bytes of each row [B]."""
    head = model.head(cfg.model, params)
    score = lambda x_BTD, targets_BT: cross_entropy(  # noqa: E731
        model.logits(cfg.model, head, x_BTD), targets_BT
    )[0]
    x_BTD = model.hidden(cfg.model, params, batch)
    nll_BT = loss_in_chunks.each(score, cfg.loss.loss_chunk, x_BTD, batch["targets"])
    rows = {"nats": (nll_BT * batch["weights"]).sum(-1), "weights": batch["weights"].sum(-1)}
    return rows | ({"bytes": batch["bytes"]} if "bytes" in batch else {})
