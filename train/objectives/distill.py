"""The objective of knowledge distillation: the student takes on the teacher's distribution.

With the teacher's p and the student's q, both at temperature τ, and the cross-entropy H of the
target at temperature 1, the loss of a token is (Hinton et al. 2015, section 2)

    (1 - hard_weight) τ² D(p, q) + hard_weight H

    forward          KL(p ‖ q)
    reverse          KL(q ‖ p)                              Gu et al. 2024 (MiniLLM)
    mixed            (1 - mix) KL(p ‖ q) + mix KL(q ‖ p)
    jensen_shannon   mix KL(p ‖ m) + (1 - mix) KL(q ‖ m), m = mix p + (1 - mix) q
                                                            Agarwal et al. 2024 (GKD), eq. 1
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
from train.objectives.metrics import Metric
from train.objectives.refusals import refuse_settings, require_distribution, require_vocabulary

FIELDS = ("tokens", "targets", "weights")
NEEDS = ("hidden", "head", "logits")
FROZEN = {"teacher": "objective.teacher"}
TRAINED = ("loss", "divergence")
# The loss is the student's cross-entropy of the next token, so that a student can be compared with
# models that were trained without a teacher.
METRICS = {
    "loss": Metric("nats/token", of="nats", per="weights", floor=0.0),
    "bits_per_byte": Metric("bits/byte", of="nats", per="bytes", divisor=math.log(2), floor=0.0),
    "divergence": Metric("nats/token", of="divergence", per="weights"),
    "teacher_loss": Metric("nats/token", of="teacher_nats", per="weights"),
}


@dataclass(frozen=True)
class Config:
    """The keys of the section `objective`."""

    teacher: str = ""  # a run, or a folder of Hugging Face weights, of the same vocabulary
    teacher_hash: str = ""  # of its weights, filled in by `resolve`
    divergence: str = "forward"  # forward | reverse | mixed | jensen_shannon
    mix: float = 0.5  # of mixed and jensen_shannon
    temperature: float = 1.0  # of both distributions
    hard_weight: float = 0.0  # of the cross-entropy of the target


@dataclass(frozen=True)
class Loss:
    """What the loss reads."""

    divergence: str = "forward"
    mix: float = 0.5
    temperature: float = 1.0
    hard_weight: float = 0.0
    chunk: int = 0


def configure(config: Any) -> Loss:
    """The Loss of a resolved config; ValueError for an unknown divergence, numbers out of bounds,
    and settings of other losses."""
    keys = config.objective
    if keys.divergence not in DIVERGENCES:
        raise ValueError(
            f"objective.divergence={keys.divergence!r} is unknown; use one of "
            f"{', '.join(DIVERGENCES)}"
        )
    if not keys.temperature > 0:
        raise ValueError(f"objective.temperature={keys.temperature} must be above 0; use 1")
    if not 0 <= keys.hard_weight <= 1:
        raise ValueError(f"objective.hard_weight={keys.hard_weight} must be from 0 to 1")
    if not 0 < keys.mix < 1:
        raise ValueError(
            f"objective.mix={keys.mix} must be above 0 and below 1; the ends are "
            "objective.divergence=forward and reverse"
        )
    refuse_settings(config, "z_loss", "label_smoothing")
    loss_in_chunks.require(config.train.loss_chunk, config.model.context_length)
    chosen = keys.divergence, keys.mix, keys.temperature, keys.hard_weight
    return Loss(*chosen, config.train.loss_chunk)


def check_frozen(model: Any, frozen: tuple[tuple[str, str, Any], ...]) -> None:
    """ValueError for a teacher that gives no distribution of the next token, or one over another
    vocabulary."""
    require_distribution(frozen, NEEDS)
    require_vocabulary(model, frozen)


def kl(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """KL(p ‖ q) [...] in nats of log-probabilities [..., V]."""
    return (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


def forward(log_p: jax.Array, log_q: jax.Array, mix: float) -> jax.Array:
    return kl(log_p, log_q)


def reverse(log_p: jax.Array, log_q: jax.Array, mix: float) -> jax.Array:
    return kl(log_q, log_p)


def mixed(log_p: jax.Array, log_q: jax.Array, mix: float) -> jax.Array:
    return (1 - mix) * kl(log_p, log_q) + mix * kl(log_q, log_p)


def jensen_shannon(log_p: jax.Array, log_q: jax.Array, mix: float) -> jax.Array:
    log_m = jnp.logaddexp(log_p + math.log(mix), log_q + math.log1p(-mix))
    return mix * kl(log_p, log_m) + (1 - mix) * kl(log_q, log_m)


# (the teacher's log-probabilities [..., V], the student's, mix) → D [...] in nats.
DIVERGENCES = {
    "forward": forward,
    "reverse": reverse,
    "mixed": mixed,
    "jensen_shannon": jensen_shannon,
}


def divergence(teacher: jax.Array, student: jax.Array, cfg: Loss) -> jax.Array:
    """D [...] of logits [..., V] at the temperature, in nats, without the factor τ²."""
    log_p, log_q = (
        jax.nn.log_softmax(logits.astype(jnp.float32) / cfg.temperature)
        for logits in (jax.lax.stop_gradient(teacher), student)
    )
    return DIVERGENCES[cfg.divergence](log_p, log_q, cfg.mix)


def _scores(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array | None
) -> dict[str, jax.Array]:
    """nats, divergence and teacher_nats of each token [B, T]."""
    _, family, of_teacher = next(entry for entry in cfg.frozen if entry[0] == "teacher")
    teacher, y_params = families.FAMILIES[family], frozen["teacher"]
    head, y_head = model.head(cfg.model, params), teacher.head(of_teacher, y_params)

    def score(x_BTD, y_BTE, targets_BT):
        student_BTV = model.logits(cfg.model, head, x_BTD)
        teacher_BTV = teacher.logits(of_teacher, y_head, y_BTE)
        return {
            "nats": cross_entropy(student_BTV, targets_BT)[0],
            "divergence": divergence(teacher_BTV, student_BTV, cfg.loss),
            "teacher_nats": cross_entropy(teacher_BTV, targets_BT)[0],
        }

    x_BTD = model.hidden(cfg.model, params, batch, key)
    y_BTE = teacher.hidden(of_teacher, y_params, batch)
    rows = x_BTD, y_BTE, batch["targets"]
    if not (chunk := cfg.loss.chunk):
        return score(*rows)
    parts = tuple(loss_in_chunks.split(x, chunk) for x in rows)
    scores = jax.lax.map(lambda xs: jax.checkpoint(score)(*xs), parts)
    return jax.tree.map(loss_in_chunks.join, scores)


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The loss; as metrics the cross-entropy and the divergence."""
    w_BT = batch["weights"]
    scores = _scores(model, params, frozen, cfg, batch, key)
    nats, apart = ((scores[name] * w_BT).sum() for name in ("nats", "divergence"))
    hard = cfg.loss.hard_weight
    total = (1 - hard) * cfg.loss.temperature**2 * apart + hard * nats
    return total, {"loss": (nats, w_BT.sum()), "divergence": (apart, w_BT.sum())}


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """Nats of student and teacher, divergence, weights and, for text, bytes of each row [B]."""
    w_BT = batch["weights"]
    scores = _scores(model, params, frozen, cfg, batch, None)
    rows = {name: (score_BT * w_BT).sum(-1) for name, score_BT in scores.items()}
    rows |= {"weights": w_BT.sum(-1)}
    return rows | ({"bytes": batch["bytes"]} if "bytes" in batch else {})
