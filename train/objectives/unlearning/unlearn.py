"""The objective of unlearning: the loss of some texts is raised, all else is kept as it was.

    loss of a token to be forgotten   -min(nats, limit)        gradient ascent, Jang et al. 2023
    loss of a token to be kept        kl KL(p ‖ q) + nats nats  p: the reference, q: the model

The reference is the model before unlearning, frozen (the KL term as in Yao et al. 2023, section 3;
Maini et al. 2024, TOFU, compare such losses). Rows to be forgotten have forget = 1. Ascent has no
end of its own: above objective.limit nats a token has no gradient, so that the loss of what is
forgotten stops near that of a model that never knew it instead of growing without bound.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model import families
from model.families import Trained
from train.objectives import loss_in_chunks
from train.objectives.cross_entropy import cross_entropy
from train.objectives.distill import kl
from train.objectives.metrics import Metric
from train.objectives.refusals import refuse_settings, require_distribution, require_vocabulary

FIELDS = ("tokens", "targets", "weights", "forget")
NEEDS = ("hidden", "head", "logits")
FROZEN = {"reference": "objective.reference"}
FROM_START = ("objective.reference",)
TRAINED = ("loss", "forget_loss", "divergence")
PREDICTS = "the next token of text that is kept"
# Without floors: that a loss grows is what is asked for, and no sign of divergence.
METRICS = {
    "loss": Metric("nats/token", of="nats", per="weights"),
    "bits_per_byte": Metric("bits/byte", of="nats", per="bytes", divisor=math.log(2)),
    "divergence": Metric("nats/token", of="divergence", per="weights"),
    "forget_loss": Metric("nats/token", of="forget_nats", per="forget_weights", better="higher"),
}


@dataclass(frozen=True)
class Config:
    """The keys of the section `objective`."""

    limit: float = 0.0  # nats of a token from which it is not raised further; 0: none
    kl: float = 1.0  # weight of the KL from the reference on what is kept
    nats: float = 0.0  # weight of the cross-entropy of what is kept
    reference: str = ""  # a run, or a folder of Hugging Face weights; "": train.init_from
    reference_hash: str = ""  # of its weights, filled in by `resolve`


@dataclass(frozen=True)
class Loss:
    """What the loss reads."""

    limit: float = 0.0
    kl: float = 1.0
    nats: float = 0.0
    chunk: int = 0


def configure(config: Any) -> Loss:
    """The Loss of a resolved config; ValueError for negative numbers and settings of other
    losses."""
    keys = config.objective
    for key in ("limit", "kl", "nats"):
        if not keys[key] >= 0:
            raise ValueError(f"objective.{key}={keys[key]} must be at least 0")
    refuse_settings(config, "z_loss", "label_smoothing")
    loss_in_chunks.require(config.train.loss_chunk, config.model.context_length)
    return Loss(keys.limit, keys.kl, keys.nats, config.train.loss_chunk)


def check_frozen(model: Any, frozen: tuple[tuple[str, str, Any], ...]) -> None:
    """ValueError for a reference that gives no distribution of the next token, or one over another
    vocabulary."""
    require_distribution(frozen, NEEDS)
    require_vocabulary(model, frozen)


def _scores(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> dict[str, jax.Array]:
    """nats and divergence of each token [B, T]."""
    _, family, of_reference = next(entry for entry in cfg.frozen if entry[0] == "reference")
    reference, y_params = families.FAMILIES[family], frozen["reference"]
    head, y_head = model.head(cfg.model, params), reference.head(of_reference, y_params)

    def score(x_BTD, y_BTE, targets_BT):
        logits_BTV = model.logits(cfg.model, head, x_BTD)
        log_q_BTV = jax.nn.log_softmax(logits_BTV.astype(jnp.float32))
        kept_BTV = reference.logits(of_reference, y_head, y_BTE).astype(jnp.float32)
        log_p_BTV = jax.nn.log_softmax(jax.lax.stop_gradient(kept_BTV))
        return {
            "nats": cross_entropy(logits_BTV, targets_BT)[0],
            "divergence": kl(log_p_BTV, log_q_BTV),
        }

    x_BTD = model.hidden(cfg.model, params, batch, key)
    y_BTE = reference.hidden(of_reference, y_params, batch)
    rows = x_BTD, y_BTE, batch["targets"]
    if not (chunk := cfg.loss.chunk):
        return score(*rows)
    parts = tuple(loss_in_chunks.split(x, chunk) for x in rows)
    scores = jax.lax.map(lambda xs: jax.checkpoint(score)(*xs), parts)
    return jax.tree.map(loss_in_chunks.join, scores)


def _weights(batch: dict) -> tuple[jax.Array, jax.Array]:
    """The weights of the tokens that are kept and of those to be forgotten, both [B, T]."""
    forget_B1 = batch["forget"][:, None].astype(jnp.float32)
    return batch["weights"] * (1 - forget_B1), batch["weights"] * forget_B1


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The loss; as metrics the cross-entropy of both parts and the divergence of what is kept.

    The gradient is divided by the tokens that are kept, so a token to be forgotten counts as much
    as one of them."""
    scores = _scores(model, params, frozen, cfg, batch, key)
    keep_BT, forget_BT = _weights(batch)
    nats_BT, limit = scores["nats"], cfg.loss.limit
    raised_BT = jnp.minimum(nats_BT, limit) if limit else nats_BT
    kept = cfg.loss.kl * scores["divergence"] + cfg.loss.nats * nats_BT
    total = (kept * keep_BT).sum() - (raised_BT * forget_BT).sum()
    return total, {
        "loss": ((nats_BT * keep_BT).sum(), keep_BT.sum()),
        "forget_loss": ((nats_BT * forget_BT).sum(), forget_BT.sum()),
        "divergence": ((scores["divergence"] * keep_BT).sum(), keep_BT.sum()),
    }


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """Nats, divergence and weights of what is kept, nats and weights of what is forgotten and, for
    text, bytes of each row [B]."""
    scores = _scores(model, params, frozen, cfg, batch, None)
    keep_BT, forget_BT = _weights(batch)
    rows = {name: (score_BT * keep_BT).sum(-1) for name, score_BT in scores.items()}
    rows |= {"weights": keep_BT.sum(-1), "forget_weights": forget_BT.sum(-1)}
    rows["forget_nats"] = (scores["nats"] * forget_BT).sum(-1)
    return rows | ({"bytes": batch["bytes"]} if "bytes" in batch else {})
