"""The objective of word2vec with the full softmax: the cross-entropy of each predicted word over
the whole vocabulary, Mikolov et al. 2013b, eq. 1 and 2."""

from typing import Any

import jax

from model.families import Trained
from train.objectives.metrics import Metric
from train.objectives.words.per_term import loss_of, rows_of

FIELDS = ("tokens", "segments", "reach")
NEEDS = ("hidden", "head", "logits", "scores")
TRAINED = ("loss",)
METRICS = {"loss": Metric("nats/pair", of="nats", per="weights", floor=0.0)}


def configure(config: Any) -> None:
    """Nothing but the model's keys is read; ValueError for noise words, which have no use."""
    if config.model.negatives:
        raise ValueError(
            f"model.negatives={config.model.negatives}, but objective.name='full_softmax' needs no "
            "noise words; use model.negatives=0, or objective.name=negative_sampling"
        )


def _nats(
    model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """-log p of the predictions of each word [B, T], summed, and their number [B, T]."""
    x_BTD = model.hidden(cfg.model, params, batch, key)
    head = model.head(cfg.model, params)
    score_BTP, w_BTP = model.scores(cfg.model, head, x_BTD, batch)
    log_z_BT = jax.nn.logsumexp(model.logits(cfg.model, head, x_BTD), axis=-1)
    pairs_BT = w_BTP.sum(-1)
    return pairs_BT * log_z_BT - (w_BTP * score_BTP).sum(-1), pairs_BT


loss = loss_of(_nats)
evaluate = rows_of(_nats, "nats")
