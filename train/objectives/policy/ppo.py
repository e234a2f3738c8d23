"""Proximal policy optimisation: Schulman et al. 2017, as used on language models by Ziegler et al.
2019 and Ouyang et al. 2022.

The value function is a scalar head on the policy's trunk (`model.n_classes=1`), or a model of its
own that starts from a reward model (`objective.value_model`). Each token has a reward, minus the
weighted KL from the reference; the response's own reward comes at its last token.
Advantages are by GAE, whitened over the rollout.
"""

from typing import Any

import jax
import jax.numpy as jnp

from model import classes
from model.families import Trained
from train.objectives.policy import experience, responses, settings
from train.objectives.policy.estimators import (
    KL,
    explained_variance,
    gae,
    token_rewards,
    whiten,
)
from train.objectives.policy.surrogate import clipped_policy, clipped_value

FIELDS, NEEDS, PREDICTS = experience.FIELDS, experience.NEEDS, experience.PREDICTS
MAKES, METRICS = responses.MAKES, experience.METRICS
FROZEN, FROM_START = settings.FROZEN, settings.FROM_START
MAY_LACK, check_frozen = settings.MAY_LACK, settings.check_frozen
BESIDE = settings.BESIDE
N_CLASSES = 1  # the value head on the policy's trunk
TRAINED = (
    *("loss", "policy_loss", "value_loss", *experience.MEASURED),
    *("clip_fraction", "explained_variance"),
)
prompts, passes = settings.prompts, settings.passes
for_data = settings.for_data
respond, score, evaluate = experience.respond, experience.score, experience.evaluate


def configure(config: Any) -> settings.Config:
    """The settings of a resolved config; ValueError for a model without a value head, or with one
    beside a value model, and for what `settings.configure` refuses."""
    n_classes, value_model = config.model.get("n_classes"), config.objective.get("value_model")
    if value_model and n_classes:
        raise ValueError(
            f"model.n_classes={n_classes}, but objective.value_model={value_model} has the value "
            "head; use 0, or objective.value_model=''"
        )
    if value_model and config.adapter.name:
        raise ValueError(
            f"adapter.name={config.adapter.name!r} does not go with objective.value_model="
            f"{value_model}, which is trained in full; use '' for one of them"
        )
    if not value_model and n_classes != 1:
        raise ValueError(
            f"model.n_classes={n_classes}, but objective.name="
            f"{config.objective.name!r} trains a value head of one output; use 1, or 0"
        )
    return settings.configure(config)


def values(params: dict, frozen: dict, cfg: Any, batch: dict, x_RND: jax.Array) -> jax.Array:
    """The value [R, N] of each state before a token, 0 after the response: of the value model if
    there is one, otherwise of the head on the policy's states `x_RND`."""
    if own := experience.frozen_model(frozen, cfg, "value"):
        family, model_cfg, params = own
        x_RND = responses.states(family, params, model_cfg, batch)
    return classes.logits(params, x_RND)[..., 0] * batch["mask"]


def scored(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(log-probabilities, entropies, values) [R, N] of the tokens of responses, by one pass of the
    policy and one of the value model if there is one."""
    x_RND = responses.states(model, params, cfg.model, batch)
    tokens_RN, mask_RN = batch["response"], batch["mask"]
    how = cfg.loss.temperature, cfg.loss.vocab_size
    found = responses.scored(model, params, cfg.model, x_RND, tokens_RN, *how)
    values_RN = values(params, frozen, cfg, batch, x_RND)
    return *(x_RN * mask_RN for x_RN in found), values_RN


def rollout(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> dict:
    """The responses of `experience.rollout`, with the value before each token."""
    settings = cfg.loss
    rows = responses.draw(model, params, cfg, batch, key, settings.samples, settings.temperature)
    logp_RN, _, values_RN = scored(model, params, frozen, cfg, rows)
    found = {"logprobs": logp_RN, "values": values_RN}
    return rows | found | experience.judged(frozen, cfg, rows, settings.temperature)


def advantages(cfg: Any, batch: dict) -> dict:
    """The batch [R, ...] with the advantage and the return of each token."""
    settings, mask_RN, values_RN = cfg.loss, batch["mask"], batch["values"]
    kl_RN = KL[settings.kl_estimator](batch["logprobs"], batch["reference"])
    weight = settings.kl if settings.kl_in == "reward" else 0.0
    rewards_RN = token_rewards(batch["reward"], kl_RN, mask_RN, weight)
    if settings.whiten_rewards:
        rewards_RN = whiten(rewards_RN, mask_RN, shift_mean=False)
    advantages_RN, returns_RN = gae(rewards_RN, values_RN, settings.gamma, settings.gae_lambda)
    explained = explained_variance(values_RN, returns_RN, mask_RN)
    if settings.whiten:
        advantages_RN = whiten(advantages_RN, mask_RN)
    return experience.without_prompts(batch) | {
        "advantages": advantages_RN * mask_RN,
        "returns": returns_RN * mask_RN,
        "explained": jnp.full(len(mask_RN), explained),
    }


def loss(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict, key: jax.Array
) -> tuple[jax.Array, dict]:
    """The clipped policy loss plus the weighted value loss, summed over tokens. Without dropout,
    because the ratio to the policy that drew the responses must begin at 1."""
    settings, mask_BN = cfg.loss, batch["mask"]
    logp_BN, entropy_BN, values_BN = scored(model, params, frozen, cfg, batch)
    policy_BN, clipped_BN = clipped_policy(
        logp_BN, batch["logprobs"], batch["advantages"], settings.clip, settings.high
    )
    policy_BN += experience.penalty(cfg, logp_BN, batch, entropy_BN)
    value_BN = clipped_value(values_BN, batch["values"], batch["returns"], settings.value_clip)
    policy, value = ((x_BN * mask_BN).sum() for x_BN in (policy_BN, value_BN))
    total, tokens = policy + settings.value_weight * value, mask_BN.sum()
    return total, experience.measured(batch, entropy_BN) | {
        "loss": (total, tokens),
        "policy_loss": (policy, tokens),
        "value_loss": (value, tokens),
        "clip_fraction": ((clipped_BN * mask_BN).sum(), tokens),
        "explained_variance": (batch["explained"].sum(), jnp.float32(len(mask_BN))),
    }
