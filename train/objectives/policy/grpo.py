"""Group relative policy optimisation: Shao et al. 2024, eq. 3, with the switches of later papers.

The advantage of a response is its reward against those of the other responses to the same prompt,
so there is no value function. `scale`, `normalise`, `clip_high` and `kl_in` are what Dr. GRPO
(Liu et al. 2025) and DAPO (Yu et al. 2025) change.
"""

from typing import Any

import jax
import jax.numpy as jnp

from model.families import Trained
from train.objectives.policy import experience, responses, settings
from train.objectives.policy.estimators import flat_groups, group_advantages
from train.objectives.policy.surrogate import NORMALISE, clipped_policy

FIELDS, NEEDS, PREDICTS = experience.FIELDS, experience.NEEDS, experience.PREDICTS
MAKES, METRICS = responses.MAKES, experience.METRICS
FROZEN, FROM_START = settings.FROZEN, settings.FROM_START
MAY_LACK, check_frozen = settings.MAY_LACK, settings.check_frozen
TRAINED = ("loss", *experience.MEASURED, "clip_fraction", "flat_groups")
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
    advantage_R = group_advantages(experience.shaped(cfg, batch), cfg.loss.samples, cfg.loss.scale)
    return experience.without_prompts(batch) | {
        "advantages": advantage_R[:, None] * batch["mask"],
        "flat": flat_groups(batch["reward"], cfg.loss.samples),
    }


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The clipped loss, with the KL if it is in the loss, summed as `normalise` says. Without
    dropout, because the ratio to the policy that drew the responses must begin at 1."""
    how = cfg.loss.temperature, cfg.loss.vocab_size
    logp_BN, entropy_BN = responses.logprobs(model, params, cfg.model, batch, *how)
    of_policy = cfg.loss.clip, cfg.loss.high
    loss_BN, clipped_BN = clipped_policy(
        logp_BN, batch["logprobs"], batch["advantages"], *of_policy
    )
    loss_BN += experience.penalty(cfg, logp_BN, batch, entropy_BN)
    weights_BN, divisor = NORMALISE[cfg.loss.normalise](batch["mask"])
    total = (loss_BN * weights_BN).sum()
    return total, {"loss": (total, divisor)} | experience.measured(batch, entropy_BN) | {
        "clip_fraction": ((clipped_BN * batch["mask"]).sum(), batch["mask"].sum()),
        "flat_groups": (batch["flat"].sum(), jnp.float32(len(batch["flat"]))),
    }
