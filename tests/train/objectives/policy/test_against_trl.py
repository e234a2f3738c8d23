"""Tests PPO against trl 0.11.4, and GRPO and RLOO against trl 1.x.

tests/golden/policy/make.py wrote what they compute on random tensors with ragged masks.
"""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.objectives.policy import grpo, ppo, responses
from train.objectives.policy.estimators import (
    gae,
    group_advantages,
    leave_one_out,
    token_rewards,
    whiten,
)
from train.objectives.policy.settings import Config
from train.objectives.policy.surrogate import clipped_value

GOLD = dict(np.load(Path(__file__).parents[3] / "golden" / "policy" / "trl.npz"))
MASK = GOLD["mask"]
KL, GAMMA, LAM = 0.3, 0.97, 0.9  # of the golden file
TOLERANCE = dict(rtol=0, atol=1e-6)


def differs(found, expected) -> None:
    """A control: at least ten times the tolerance away."""
    assert np.abs(np.asarray(found) - expected).max() > 10 * TOLERANCE["atol"]


def test_rewards_of_tokens():
    """trl puts the reward of a response that ends early one token after its last, where it also
    learns a value. Here a response has no value after its end, so only full responses agree."""
    kl = (GOLD["old"] - GOLD["reference"]) * MASK
    found = token_rewards(GOLD["scores"], kl, MASK, KL)
    full = GOLD["lengths"] == MASK.shape[1]
    assert full.sum() == 2
    np.testing.assert_allclose(found[full], GOLD["rewards_0"][full], **TOLERANCE)
    np.testing.assert_allclose(found.sum(1), GOLD["rewards_0"].sum(1), **TOLERANCE)
    differs(token_rewards(GOLD["scores"], kl, MASK, KL + 0.01)[full], GOLD["rewards_0"][full])


@pytest.mark.parametrize("whitened", [0, 1])
def test_advantages_and_returns(whitened):
    values, with_next = GOLD["values"] * GOLD["mask_p1"], GOLD["mask_p1"]
    rewards = GOLD["rewards_0"]
    if whitened:
        rewards = whiten(rewards, with_next, shift_mean=False)
        np.testing.assert_allclose(rewards, GOLD["rewards_1"], **TOLERANCE)
    advantages, returns = gae(rewards, values, GAMMA, LAM)
    expected = GOLD[f"advantages_{whitened}"]
    np.testing.assert_allclose(returns, GOLD[f"returns_{whitened}"], **TOLERANCE)
    np.testing.assert_allclose(whiten(advantages, MASK), expected, **TOLERANCE)
    differs(whiten(gae(rewards, values, GAMMA, 1.0)[0], MASK), expected)
    differs(whiten(advantages, np.ones_like(MASK)), expected)


def batch(**more) -> dict:
    return {
        "mask": jnp.asarray(MASK), "logprobs": GOLD["old"] * MASK,
        "reference": GOLD["reference"] * MASK, "reward": GOLD["grpo_rewards"],
    } | more  # fmt: skip


def mean_and_gradient(objective, settings: Config, params, of: dict):
    """(mean loss, gradient, Sums) as the training step computes them."""
    cfg = SimpleNamespace(model=None, loss=settings)

    def mean(params):
        total, sums = objective.loss(None, params, {}, cfg, of, None)
        return total / sums["loss"][1], sums

    (loss, sums), gradient = jax.value_and_grad(mean, has_aux=True)(params)
    return loss, gradient, sums


def test_ppo_losses_and_gradients(monkeypatch):
    """trl averages the value loss over one token more of a response that ends early, so its part is
    compared with that mask."""
    monkeypatch.setattr(
        ppo, "scored", lambda model, params, frozen, cfg, of: (params * MASK, 0 * MASK, 0 * MASK)
    )
    of = batch(advantages=GOLD["advantages_0"], returns=0 * MASK, values=0 * MASK)
    of["explained"] = jnp.zeros(len(MASK))
    loss, gradient, sums = mean_and_gradient(ppo, Config(clip=0.2), GOLD["new"], of)
    np.testing.assert_allclose(loss, GOLD["pg_loss"], **TOLERANCE)
    np.testing.assert_allclose(gradient, GOLD["new_grad"], **TOLERANCE)
    clipped, tokens = sums["clip_fraction"]
    np.testing.assert_allclose(clipped / tokens, GOLD["pg_clipfrac"], **TOLERANCE)
    differs(mean_and_gradient(ppo, Config(clip=0.1), GOLD["new"], of)[0], GOLD["pg_loss"])

    def value_loss(values, clip=0.2):
        with_next = GOLD["mask_p1"]
        old = GOLD["values"] * with_next
        loss = clipped_value(values * with_next, old, GOLD["returns_0"], clip)
        return (loss * with_next).sum() / with_next.sum()

    found, of_values = jax.value_and_grad(value_loss)(GOLD["new_values"])
    np.testing.assert_allclose(found, GOLD["vf_loss"], **TOLERANCE)
    np.testing.assert_allclose(0.1 * of_values, GOLD["new_values_grad"], **TOLERANCE)
    np.testing.assert_allclose(loss + 0.1 * found, GOLD["loss"], **TOLERANCE)
    differs(value_loss(GOLD["new_values"], clip=0.0), GOLD["vf_loss"])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_advantages(scale):
    rewards = GOLD["grpo_rewards"]
    found = group_advantages(jnp.asarray(rewards), 3, scale)
    np.testing.assert_allclose(found, GOLD[f"grpo_advantages_{scale}"], **TOLERANCE)
    assert found[3:].tolist() == [0, 0, 0]  # equal rewards, whose mean is not exactly one of them
    other = GOLD[f"grpo_advantages_{'batch' if scale == 'none' else 'none'}"]
    differs(found, other)


def test_leave_one_out():
    found = leave_one_out(jnp.asarray(GOLD["grpo_rewards"]), 3)
    np.testing.assert_allclose(found, GOLD["rloo_advantages"], **TOLERANCE)
    differs(found, GOLD["grpo_advantages_none"])


LOSSES = {  # as in tests/golden/policy/make.py
    "sequence": Config(normalise="sequence"),
    "sequence_kl": Config(normalise="sequence", kl=0.04),
    "token": Config(normalise="token", kl=0.04, clip_high=0.28),
    "dapo": Config(normalise="token", clip_high=0.28),
    "constant": Config(normalise="constant"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_grpo_losses_and_gradients(name, monkeypatch):
    monkeypatch.setattr(responses, "logprobs", lambda model, params, *_: (params * MASK, 0 * MASK))
    settings = Config(**vars(LOSSES[name]) | dict(kl_in="loss", kl_estimator="k3"))
    advantages = GOLD["grpo_advantages_group"][:, None] * MASK
    of = batch(advantages=advantages, flat=jnp.zeros(len(MASK)))
    loss, gradient, _ = mean_and_gradient(grpo, settings, GOLD["new"], of)
    np.testing.assert_allclose(loss, GOLD[f"grpo_loss_{name}"], **TOLERANCE)
    np.testing.assert_allclose(gradient, GOLD[f"grpo_grad_{name}"], **TOLERANCE)
    others = {other: GOLD[f"grpo_grad_{other}"] for other in LOSSES if other != name}
    for other in others.values():
        differs(gradient, other)
