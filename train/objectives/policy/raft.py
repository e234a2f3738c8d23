"""Rejection sampling: supervised training on the best of n responses to each prompt. Dong et al.
2023 (RAFT).

A rollout draws n responses to each prompt, and the updates see the one with the highest reward.
With `skip_flat`, prompts whose responses have equal rewards, such as all wrong ones, have no
weight.
"""

from typing import Any

import jax
import jax.numpy as jnp

from model.families import Trained
from train.objectives.policy import experience, responses, settings
from train.objectives.policy.estimators import flat_groups

FIELDS, NEEDS, PREDICTS = experience.FIELDS, experience.NEEDS, experience.PREDICTS
MAKES, METRICS = responses.MAKES, experience.METRICS
FROZEN, FROM_START = settings.FROZEN, settings.FROM_START
MAY_LACK, check_frozen = settings.MAY_LACK, settings.check_frozen
TRAINED = ("loss", *experience.MEASURED, "best_reward", "flat_groups")
prompts, passes = settings.prompts, settings.passes
for_data = settings.for_data
rollout, respond, score = experience.rollout, experience.respond, experience.score
evaluate = experience.evaluate


def configure(config: Any) -> settings.Config:
    """The settings of a resolved config; ValueError for groups of one response, and for what
    `settings.configure` refuses."""
    sized = config.copy_and_resolve_references()
    sized.train.batch_size = config.train.batch_size * config.objective.samples  # to choose from
    cfg = settings.configure(sized)
    settings.require_groups(config, cfg)
    return cfg


def advantages(cfg: Any, batch: dict) -> dict:
    """The best response to each prompt [P, ...], of equal ones the first, and the mean reward."""
    n = cfg.loss.samples
    groups = {name: x.reshape(-1, n, *x.shape[1:]) for name, x in batch.items()}
    best_P, rows_P = groups["reward"].argmax(1), jnp.arange(len(groups["reward"]))
    kept = {name: x[rows_P, best_P] for name, x in experience.without_prompts(groups).items()}
    flat_P = flat_groups(batch["reward"], n)[::n]
    keep_P = 1 - flat_P if cfg.loss.skip_flat else jnp.ones_like(flat_P)
    mean_P = groups["reward"].mean(1)
    return kept | {"best": kept["reward"], "reward": mean_P, "flat": flat_P, "keep": keep_P}


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The cross-entropy of the tokens of the best responses, summed, without dropout."""
    how = cfg.loss.temperature, cfg.loss.vocab_size
    logp_BN, entropy_BN = responses.logprobs(model, params, cfg.model, batch, *how)
    loss_BN = -logp_BN + experience.penalty(cfg, logp_BN, batch, entropy_BN)
    weights_BN, rows = batch["mask"] * batch["keep"][:, None], jnp.float32(len(batch["flat"]))
    total = (loss_BN * weights_BN).sum()
    return total, experience.measured(batch, entropy_BN) | {
        "loss": (total, weights_BN.sum()),
        "best_reward": (batch["best"].sum(), rows),
        "flat_groups": (batch["flat"].sum(), rows),
    }
