"""REINFORCE with the baseline of a group: Williams 1992; Ahmadian et al. 2024 (RLOO).

The advantage of a response is its reward minus the mean of the others to the same prompt. There is
one update on each rollout, so no ratio and no clipping.
"""

from typing import Any

import jax
import jax.numpy as jnp

from model.families import Trained
from train.objectives.policy import experience, responses, settings
from train.objectives.policy.estimators import flat_groups, leave_one_out
from train.objectives.policy.surrogate import NORMALISE

FIELDS, NEEDS, PREDICTS = experience.FIELDS, experience.NEEDS, experience.PREDICTS
MAKES, METRICS = responses.MAKES, experience.METRICS
FROZEN, FROM_START = settings.FROZEN, settings.FROM_START
MAY_LACK, check_frozen = settings.MAY_LACK, settings.check_frozen
TRAINED = ("loss", *experience.MEASURED, "flat_groups")
prompts, passes = settings.prompts, settings.passes
for_data = settings.for_data
rollout, respond, score = experience.rollout, experience.respond, experience.score
evaluate = experience.evaluate


def configure(config: Any) -> settings.Config:
    """The settings of a resolved config; ValueError for groups of one response, and for what
    `settings.configure` refuses."""
    cfg = settings.configure(config)
    settings.require_groups(config, cfg)
    return cfg


def advantages(cfg: Any, batch: dict) -> dict:
    """The batch [R, ...] with the advantage of each token."""
    advantage_R = leave_one_out(experience.shaped(cfg, batch), cfg.loss.samples)
    return experience.without_prompts(batch) | {
        "advantages": advantage_R[:, None] * batch["mask"],
        "flat": flat_groups(batch["reward"], cfg.loss.samples),
    }


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """−A log p of each token, summed as `normalise` says, without dropout."""
    how = cfg.loss.temperature, cfg.loss.vocab_size
    logp_BN, entropy_BN = responses.logprobs(model, params, cfg.model, batch, *how)
    loss_BN = -batch["advantages"] * logp_BN + experience.penalty(cfg, logp_BN, batch, entropy_BN)
    weights_BN, divisor = NORMALISE[cfg.loss.normalise](batch["mask"])
    total = (loss_BN * weights_BN).sum()
    return total, experience.measured(batch, entropy_BN) | {
        "loss": (total, divisor),
        "flat_groups": (batch["flat"].sum(), jnp.float32(len(batch["flat"]))),
    }
