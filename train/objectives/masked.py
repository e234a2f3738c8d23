"""The objective of masked language models: the cross-entropy of masked tokens given the text on
both sides (Devlin et al. 2019, section 3.1)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model.families import Trained
from train.objectives.cross_entropy import cross_entropy, training_loss
from train.objectives.metrics import Metric

FIELDS = ("tokens", "segments", "masked_places", "masked_tokens")
NEEDS = ("hidden", "masked_logits")
TRAINED = ("loss",)
METRICS = {
    "loss": Metric("nats/masked token", of="nats", per="predicted", floor=0.0),
    "accuracy": Metric("share of masked tokens", of="right", per="predicted", better="higher"),
}


@dataclass(frozen=True)
class Config:
    """The settings of the config section `train` that the loss reads."""

    z_loss: float = 0.0
    label_smoothing: float = 0.0


def configure(config: Any) -> Config:
    """The Config of a resolved config; ValueError for a model without a masked-LM head, and for
    chunks of the loss."""
    if not config.model.get("masked_head", True):
        raise ValueError(
            f"model.masked_head=False (model.n_classes={config.model.get('n_classes', 0)}), but "
            "objective.name='masked' trains this head; use model.masked_head=True and "
            "model.n_classes=0"
        )
    if config.train.loss_chunk:
        raise ValueError(
            f"train.loss_chunk={config.train.loss_chunk} has no effect: objective.name='masked' "
            "computes the logits of masked tokens only; use 0"
        )
    return Config(config.train.z_loss, config.train.label_smoothing)


def _logits(model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array | None) -> tuple:
    """(logits [B, K, V] at the masked places, the tokens there [B, K], 1 where they count)."""
    x_BTD = model.hidden(cfg.model, params, batch, key)
    x_BKD = jnp.take_along_axis(x_BTD, batch["masked_places"][..., None], axis=1)
    wanted_BK = batch["masked_tokens"]
    counted_BK = (wanted_BK >= 0).astype(jnp.float32)
    return model.masked_logits(cfg.model, params, x_BKD), jnp.maximum(wanted_BK, 0), counted_BK


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The training loss, and the plain cross-entropy as a metric, both summed over the batch."""
    logits_BKV, wanted_BK, w_BK = _logits(model, params, cfg, batch, key)
    settings = cfg.loss.z_loss, cfg.loss.label_smoothing
    loss_BK, nll_BK = training_loss(logits_BKV, wanted_BK, *settings)
    return (loss_BK * w_BK).sum(), {"loss": ((nll_BK * w_BK).sum(), w_BK.sum())}


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """Nats, right predictions and predicted tokens of each row [B]."""
    logits_BKV, wanted_BK, w_BK = _logits(model, params, cfg, batch, None)
    nll_BK, _ = cross_entropy(logits_BKV, wanted_BK)
    right_BK = (logits_BKV.argmax(-1) == wanted_BK) * w_BK
    sums = {"nats": nll_BK * w_BK, "right": right_BK, "predicted": w_BK}
    return {name: x_BK.sum(-1) for name, x_BK in sums.items()}
