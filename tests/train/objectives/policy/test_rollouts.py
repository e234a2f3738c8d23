"""Tests what rollouts do on the host: rewards of several processes, and what is said of them."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from launch.config import config_file
from launch.trial import chunk
from launch.trial.identity import trial_id
from train.policy import rollouts
from train.policy.rollouts import BadReward, Rollouts

ROWS = {"mask": np.ones((3, 2), np.float32)}


def test_the_first_process_scores_for_all(monkeypatch):
    """Of a checker that gives other rewards each time it is asked."""
    numbers = itertools.count()
    objective = SimpleNamespace(
        score=lambda dataset, rows: np.array([next(numbers) for _ in rows["mask"]], np.float32) / 3
    )
    alone = rollouts._scored(objective, None, ROWS)
    np.testing.assert_array_equal(alone, np.array([0, 1, 2], np.float32) / 3)
    sent = []
    monkeypatch.setattr(rollouts.processes, "count", lambda: 2)
    exchange = lambda topic, value: sent.append(value) or [sent[0], value]  # noqa: E731
    monkeypatch.setattr(rollouts.processes, "exchange", exchange)
    found = []
    for first in (True, False):
        monkeypatch.setattr(rollouts.processes, "is_first", lambda first=first: first)
        found.append(rollouts._scored(objective, None, ROWS))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[0], np.array([3, 4, 5], np.float32) / 3)
    assert next(numbers) == 6  # the second process has not asked


def test_what_fails_in_the_first_process_ends_all(monkeypatch):
    def raises(dataset, rows):
        raise OverflowError("too large")

    monkeypatch.setattr(rollouts.processes, "count", lambda: 2)
    monkeypatch.setattr(rollouts.processes, "is_first", lambda: True)
    monkeypatch.setattr(rollouts.processes, "exchange", lambda topic, value: [value, value])
    with pytest.raises(BadReward, match=r"cannot be computed.*OverflowError: too large"):
        rollouts._scored(SimpleNamespace(score=raises), None, ROWS)


@pytest.mark.parametrize("updates", [1, 4])
def test_rollouts_without_variance_are_counted_whatever_their_updates(updates):
    said = []
    run = SimpleNamespace(flat=0, say=said.append)
    for number in range(30):
        assert bool(said) == (number >= rollouts.FLAT_ROLLOUTS)
        Rollouts.watch(run, {"flat_groups": [1.0] * updates})
    assert len(said) == 1
    said.clear()
    for number in range(50):  # a group with some variance, now and then
        Rollouts.watch(run, {"flat_groups": [1.0] * (updates - 1) + [0.9 + 0.1 * (number % 9 > 0)]})
    assert not said


def test_many_updates_on_virtual_devices_are_refused(monkeypatch):
    keys = {
        "objective.name": "ppo", "data.kind": "tasks", "objective.epochs": "5",
        "objective.minibatches": "4", "model.n_classes": "1",
    }  # fmt: skip
    config = config_file.load_config("configs/base.py", keys)
    assert chunk.chunk_steps(config, cpu=True) == 20
    monkeypatch.setattr("jax.device_count", lambda: 8)
    assert chunk.chunk_steps(config, cpu=False) == 20
    with pytest.raises(ValueError, match=r"objective.minibatches is 20, and .* 16 updates at most"):
        chunk.chunk_steps(config, cpu=True)


def test_where_the_reference_is_computed_does_not_change_the_trial():
    keys = {"objective.name": "dpo", "data.kind": "preferences"}
    ids = {
        trial_id(config_file.load_config("configs/base.py", keys | more))
        for more in ({"objective.stored": "True"}, {"objective.stored": "False"})
    }
    other = trial_id(config_file.load_config("configs/base.py", keys | {"objective.beta": "0.2"}))
    assert len(ids) == 1 and other not in ids
