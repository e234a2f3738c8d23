"""Tests what rollouts do on the host: rewards of several processes, and what is said of them."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

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
    with pytest.raises(BadReward, match="cannot be computed.*OverflowError: too large"):
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
