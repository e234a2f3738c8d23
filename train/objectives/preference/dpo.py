"""The objective of direct preference optimisation: pairs of answers train a policy directly.

With h = log π(chosen) / π_ref(chosen) - log π(rejected) / π_ref(rejected), the loss of a pair is

    sigmoid  -log σ(β h)                     Rafailov et al. 2023, eq. 7; with label smoothing ε
             -(1-ε) log σ(β h) - ε log σ(-β h)   Mitchell 2023 (conservative DPO)
    robust   [-(1-ε) log σ(β h) + ε log σ(-β h)] / (1 - 2ε)   Chowdhury et al. 2024, eq. 9
    hinge    max(0, 1 - β h)                 Zhao et al. 2023 (SLiC) in terms of h
    ipo      (h' - 1 / 2β)²                  Azar et al. 2024, eq. 17; h' is h with the mean over
                                             the tokens of each answer in place of the sum

The log-probabilities of the reference come with the batch, or are computed from its weights.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from model import families
from model.families import Trained
from train.objectives import loss_in_chunks
from train.objectives.metrics import Metric
from train.objectives.preference import pairs
from train.objectives.refusals import refuse_settings, require_distribution

FIELDS = pairs.FIELDS
MAKES = ("tokens",)
NEEDS = ("hidden", "head", "logits")
FROZEN = {"reference": "objective.reference"}
FROM_START = ("objective.reference",)
STORED = ("chosen_reference", "rejected_reference")
TRAINED = ("loss", "accuracy", "margin")
PREDICTS = "the preferred one of two answers, by a policy"
METRICS = {
    "loss": Metric("loss/pair", of="losses", per="pairs"),
    "accuracy": Metric("share of pairs", of="right", per="pairs", better="higher"),
    "margin": Metric("nats/pair", of="margin", per="pairs", better="higher"),  # β h
    "chosen_log_probability": Metric("nats/answer", of="chosen", per="pairs", better="higher"),
    "rejected_log_probability": Metric("nats/answer", of="rejected", per="pairs"),
}


@dataclass(frozen=True)
class Config:
    """The keys of the section `objective`."""

    variant: str = "sigmoid"  # sigmoid | robust | hinge | ipo
    beta: float = 0.1  # how strongly the policy is held to the reference
    label_smoothing: float = 0.0  # of sigmoid and robust: the share of pairs with the wrong order
    reference: str = ""  # a run, or a folder of Hugging Face weights; "": train.init_from
    reference_hash: str = ""  # of its weights, filled in by `resolve`
    # True: the reference's log-probabilities are computed once, before training, and kept in
    # data.cache. False: in every step.
    stored: bool = True


@dataclass(frozen=True)
class Loss:
    """What the loss reads."""

    variant: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    chunk: int = 0


def configure(config: Any) -> Loss:
    """The Loss of a resolved config; ValueError for an unknown variant, a strength or a smoothing
    out of bounds, and settings of other losses."""
    keys = config.objective
    if keys.variant not in VARIANTS:
        raise ValueError(
            f"objective.variant={keys.variant!r} is unknown; use one of {', '.join(VARIANTS)}"
        )
    if not keys.beta > 0:
        raise ValueError(f"objective.beta={keys.beta} must be above 0; use 0.1")
    if not 0 <= keys.label_smoothing < 0.5:
        raise ValueError(
            f"objective.label_smoothing={keys.label_smoothing} must be at least 0 and below 0.5"
        )
    if keys.label_smoothing and keys.variant not in ("sigmoid", "robust"):
        raise ValueError(
            f"objective.label_smoothing={keys.label_smoothing} has no effect with "
            f"objective.variant={keys.variant!r}; use 0, or the variants sigmoid or robust"
        )
    refuse_settings(config, "z_loss", "label_smoothing")
    loss_in_chunks.require(config.train.loss_chunk, config.model.context_length)
    return Loss(keys.variant, keys.beta, keys.label_smoothing, config.train.loss_chunk)


def check_frozen(model: Any, frozen: tuple[tuple[str, str, Any], ...]) -> None:
    """ValueError for a reference that gives no distribution of the next token."""
    require_distribution(frozen, NEEDS)


def sigmoid(h_B: jax.Array, lengths: tuple, cfg: Loss) -> jax.Array:
    logits_B, smoothing = cfg.beta * (h_B[0] - h_B[1]), cfg.label_smoothing
    return (1 - smoothing) * jax.nn.softplus(-logits_B) + smoothing * jax.nn.softplus(logits_B)


def robust(h_B: jax.Array, lengths: tuple, cfg: Loss) -> jax.Array:
    logits_B, smoothing = cfg.beta * (h_B[0] - h_B[1]), cfg.label_smoothing
    right_B, wrong_B = jax.nn.softplus(-logits_B), jax.nn.softplus(logits_B)
    return ((1 - smoothing) * right_B - smoothing * wrong_B) / (1 - 2 * smoothing)


def hinge(h_B: jax.Array, lengths: tuple, cfg: Loss) -> jax.Array:
    return jax.nn.relu(1 - cfg.beta * (h_B[0] - h_B[1]))


def ipo(h_B: jax.Array, lengths: tuple, cfg: Loss) -> jax.Array:
    chosen_B, rejected_B = (h / jnp.maximum(n, 1) for h, n in zip(h_B, lengths, strict=True))
    return jnp.square(chosen_B - rejected_B - 1 / (2 * cfg.beta))


# (log-ratios of chosen and rejected answers, their tokens, Loss) → the loss of each pair [B].
VARIANTS = {"sigmoid": sigmoid, "robust": robust, "hinge": hinge, "ipo": ipo}


def reference(frozen: dict, cfg: Any, batch: dict) -> dict[str, jax.Array]:
    """The fields STORED [B]: log-probabilities of both answers under the frozen reference."""
    found = {name: (family, config) for name, family, config in cfg.frozen}
    family, config = found["reference"]
    model, params = families.FAMILIES[family], frozen["reference"]
    rows = pairs.joined(batch)
    logp_R = pairs.log_probabilities(model, params, config, cfg.loss.chunk, *rows)
    return dict(zip(STORED, pairs.apart(jax.lax.stop_gradient(logp_R)), strict=True))


def _scores(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> dict[str, jax.Array]:
    """What METRICS sum of each pair [B]."""
    tokens_RT, weights_RT = pairs.joined(batch)
    rows = tokens_RT, weights_RT
    logp_R = pairs.log_probabilities(model, params, cfg.model, cfg.loss.chunk, *rows, key)
    of_policy = pairs.apart(logp_R)
    given = batch if STORED[0] in batch else reference(frozen, cfg, batch)
    ratios = [logp - given[name] for logp, name in zip(of_policy, STORED, strict=True)]
    losses_B = VARIANTS[cfg.loss.variant](ratios, pairs.apart(weights_RT.sum(-1)), cfg.loss)
    margin_B = cfg.loss.beta * (ratios[0] - ratios[1])
    scores = {
        "losses": losses_B,
        "right": (margin_B > 0).astype(jnp.float32),
        "margin": margin_B,
        "chosen": of_policy[0],
        "rejected": of_policy[1],
        "pairs": jnp.ones_like(margin_B),
    }
    return {name: value * pairs.counted(batch) for name, value in scores.items()}


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The loss, the share of pairs with a margin above 0, and the margin."""
    sums = {n: x.sum() for n, x in _scores(model, params, frozen, cfg, batch, key).items()}
    named = zip(TRAINED, ("losses", "right", "margin"), strict=True)
    return sums["losses"], {name: (sums[of], sums["pairs"]) for name, of in named}


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """What METRICS sum of each pair [B], without dropout."""
    return _scores(model, params, frozen, cfg, batch, None)
