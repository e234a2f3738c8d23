"""Tests length buckets: what they cut and join, and that they change no draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.objectives.policy import test_updates
from tests.train.objectives.policy.test_updates import P, S, data, state, step
from train import step as step_module
from train.policy import buckets


def test_groups_are_as_wide_as_a_quarter_holds():
    assert buckets.widths(33) == (9, 17, 25, 33) and buckets.widths(2) == (1, 2)
    lengths = np.array([9, 33, 2, 18, 25, 10])
    found = buckets.groups(lengths, 3, 33)
    assert [(rows.tolist(), width) for rows, width in found] == [
        ([2, 0], 9), ([5, 3], 25), ([4, 1], 33),
    ]  # fmt: skip
    ((rows, width),) = buckets.groups(lengths, 1, 33)
    assert rows.tolist() == lengths.argsort().tolist() and width == 33


def test_cut_and_joined_rows_are_those_of_the_prompts():
    """With rows that only copy their prompts, two to each."""
    prompts = {name: jnp.asarray(x) for name, x in data().items()}
    parts, order = [], []
    for rows, width in buckets.groups(np.asarray(prompts["prompt_length"]), 2, S):
        part = buckets.cut(width, prompts, rows)
        assert part["prompt"].shape == (P // 2, width)
        two = lambda x: jnp.repeat(x, 2, axis=0)  # noqa: E731
        response = two(part["number"])[:, None] * 2 + jnp.tile(jnp.arange(2), P // 2)[:, None]
        tokens = jnp.concatenate([two(part["prompt"]), response], axis=1)
        made = {"prompt": two(part["prompt"]), "tokens": tokens, "response": response}
        parts, order = [*parts, buckets.widened(S - width, made)], [*order, rows]
    assert np.concatenate(order).tolist() != list(range(P))  # they are out of order
    found = buckets.joined(parts, prompts, np.concatenate(order))
    assert found["response"].ravel().tolist() == list(range(2 * P))
    assert found["tokens"].shape == (2 * P, S + 1)
    np.testing.assert_array_equal(found["prompt"], np.repeat(prompts["prompt"], 2, axis=0))


def in_groups(cfg, count: int, forget: bool = False) -> dict:
    """A rollout in `count` buckets. With `forget`, draws depend on the place in the bucket."""
    prompts, parts, order = {n: jnp.asarray(x) for n, x in data().items()}, [], []
    for rows, width in buckets.groups(data()["prompt_length"], count, S):
        part = buckets.cut(width, prompts, rows)
        part |= {"number": jnp.arange(len(rows))} if forget else {}
        made = buckets.widened(S - width, test_updates.roll_out(cfg, state(), part))
        parts, order = [*parts, made], [*order, rows]
    return jax.device_get(buckets.joined(parts, prompts, np.concatenate(order)))


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["grpo", "ppo"])
def test_buckets_change_no_draw(objective):
    cfg = step(objective)
    whole = jax.device_get(test_updates.roll_out(cfg, state(), data()))
    for count in (1, 2, 4):
        found = in_groups(cfg, count)
        assert found.keys() == whole.keys()
        for name in whole:
            far = 1e-6 * max(1, np.abs(whole[name]).max())  # values of PPO are larger than 1
            np.testing.assert_allclose(found[name], whole[name], rtol=0, atol=far, err_msg=name)
    other = in_groups(cfg, 2, forget=True)  # control
    assert (other["response"] != whole["response"]).any()
    later = step_module.roll_out(cfg, state(), data(), 1)  # control: another step, other draws
    assert (np.asarray(later["response"]) != whole["response"]).any()
