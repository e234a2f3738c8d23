"""The objective of word2vec with negative sampling: a word against words drawn as noise.

Mikolov et al. 2013b, eq. 4, to be maximised for each predicted word o and the vector h that
predicts it:

    log σ(v'_o · h) + Σ_{i=1…k} log σ(-v'_{n_i} · h),   n_i drawn from the noise distribution

The predictions from one vector h share their k noise words (Ji et al. 2016, arXiv:1604.04661), so
the expected loss is that of k words for each prediction. As in the equation, a noise word may equal
the predicted word, which word2vec.c leaves out.
"""

from typing import Any

import jax

from model.families import Trained
from train.objectives.metrics import Metric
from train.objectives.words.per_term import loss_of, rows_of

FIELDS = ("tokens", "segments", "reach", "negatives")
NEEDS = ("hidden", "head", "scores", "noise_scores")
TRAINED = ("loss",)
PREDICTS = "whether a word is near another or noise"
TASK = ("model.negatives", "data.noise_power")
METRICS = {"loss": Metric("nats/pair with its noise", of="nats", per="weights", floor=0.0)}


def configure(config: Any) -> None:
    """Nothing but the model's keys is read; ValueError without noise words."""
    if config.model.negatives < 1:
        raise ValueError(
            f"model.negatives={config.model.negatives}, but objective.name='negative_sampling' "
            "needs noise words; use 5, or objective.name=full_softmax"
        )


def _nats(
    model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """-eq. 4 of the predictions of each word [B, T], summed, and their number [B, T]."""
    x_BTD = model.hidden(cfg.model, params, batch, key)
    head = model.head(cfg.model, params)
    score_BTP, w_BTP = model.scores(cfg.model, head, x_BTD, batch)
    noise_BTK = model.noise_scores(cfg.model, head, x_BTD, batch["negatives"])
    pairs_BT = w_BTP.sum(-1)
    nats_BT = (w_BTP * jax.nn.softplus(-score_BTP)).sum(-1)
    return nats_BT + pairs_BT * jax.nn.softplus(noise_BTK).sum(-1), pairs_BT


loss = loss_of(_nats)
evaluate = rows_of(_nats, "nats")
