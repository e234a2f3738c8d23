"""The objective of a reward model: which of two answers to a prompt is preferred.

A reward r is the output of a head with one class at the last token of an answer. The loss is that
of Bradley and Terry (1952), as in Ouyang et al. 2022, eq. 1, with the margin of Touvron et al. 2023
(Llama 2), eq. 2, and the centring term of Eisenstein et al. 2023, eq. 2:

    -log σ(r_chosen - r_rejected - margin) + centring (r_chosen + r_rejected)²
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model import classes
from model.families import Trained
from train.objectives.metrics import Metric
from train.objectives.preference import pairs
from train.objectives.refusals import refuse_settings

FIELDS = (*pairs.FIELDS, "margin")
MAKES = ("tokens", "segments")
NEEDS = ("pooled",)
N_CLASSES = 1
TRAINED = ("loss", "accuracy")
PREDICTS = "the preferred one of two answers, by a reward"
# `confidence` is the mean of max(p, 1 - p) for p = σ(r_chosen - r_rejected). A calibrated model has
# the confidence of its accuracy. Its Brier score is the mean of (1 - p)².
METRICS = {
    "loss": Metric("nats/pair", of="nats", per="pairs"),
    "accuracy": Metric("share of pairs", of="right", per="pairs", better="higher"),
    "brier": Metric("squared error of p/pair", of="squared_error", per="pairs"),
    "confidence": Metric("max(p, 1 - p)/pair", of="confidence", per="pairs", better="higher"),
    "reward_chosen": Metric("reward/answer", of="chosen", per="pairs", better="higher"),
    "reward_rejected": Metric("reward/answer", of="rejected", per="pairs"),
}


@dataclass(frozen=True)
class Config:
    """The keys of the section `objective`."""

    centring: float = 0.0  # weight of (r_chosen + r_rejected)²; fixes the mean reward at 0


def configure(config: Any) -> Config:
    """The Config of a resolved config; ValueError for a model without exactly one class, a weight
    below 0, and settings of other losses."""
    if config.model.get("n_classes") != 1:
        raise ValueError(
            f"model.n_classes={config.model.get('n_classes')}, but a reward is the output of one "
            "class; use 1, or 0"
        )
    if not config.objective.centring >= 0:
        raise ValueError(f"objective.centring={config.objective.centring} is below 0; use 0.01")
    refuse_settings(config, "z_loss", "loss_chunk", "label_smoothing")
    return Config(config.objective.centring)


def rewards(
    model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """(r_chosen [B], r_rejected [B]), float32."""
    tokens_RT, weights_RT = pairs.joined(batch)
    inputs = {"tokens": tokens_RT, "segments": pairs.segments(weights_RT)}
    state_RD = model.pooled(cfg.model, params, inputs, key)
    return pairs.apart(classes.logits(params, state_RD)[:, 0])


def bradley_terry(chosen_B: jax.Array, rejected_B: jax.Array, margin_B: jax.Array) -> jax.Array:
    """-log σ(r_chosen - r_rejected - margin) [B], in nats."""
    return jax.nn.softplus(margin_B + rejected_B - chosen_B)


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The loss; without the centring term as a metric."""
    chosen_B, rejected_B = rewards(model, params, cfg, batch, key)
    w_B = pairs.counted(batch)
    nats_B = bradley_terry(chosen_B, rejected_B, batch["margin"])
    centred_B = cfg.loss.centring * jnp.square(chosen_B + rejected_B)
    right_B = (chosen_B > rejected_B).astype(jnp.float32)
    sums = {"loss": (nats_B * w_B).sum(), "accuracy": (right_B * w_B).sum()}
    total = ((nats_B + centred_B) * w_B).sum()
    return total, {name: (value, w_B.sum()) for name, value in sums.items()}


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """What METRICS sum of each pair [B]."""
    chosen_B, rejected_B = rewards(model, params, cfg, batch, None)
    p_B = jax.nn.sigmoid(chosen_B - rejected_B)
    sums = {
        "nats": bradley_terry(chosen_B, rejected_B, batch["margin"]),
        "right": (chosen_B > rejected_B).astype(jnp.float32),
        "squared_error": jnp.square(1 - p_B),
        "confidence": jnp.maximum(p_B, 1 - p_B),
        "chosen": chosen_B,
        "rejected": rejected_B,
        "pairs": jnp.ones_like(p_B),
    }
    return {name: value * pairs.counted(batch) for name, value in sums.items()}
