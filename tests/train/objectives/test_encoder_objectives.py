"""Tests the objectives of encoders against numpy, and that rows without a label do not count."""

from types import SimpleNamespace

import numpy as np
import pytest

from configs import base
from launch.config import combination
from train.objectives import classify, masked, tag

RNG = np.random.default_rng(0)
X_BTD = RNG.normal(size=(3, 5, 7)).astype(np.float32)
HEAD = RNG.normal(size=(7, 4)).astype(np.float32)
PARAMS = {"classes": {"kernel": HEAD, "bias": np.zeros(4, np.float32)}}
MODEL = SimpleNamespace(
    hidden=lambda cfg, params, batch, key=None: X_BTD,
    pooled=lambda cfg, params, batch, key=None: X_BTD[:, 0],
    masked_logits=lambda cfg, params, x: x @ HEAD,
)
CFG = SimpleNamespace(model=None, loss=masked.Config())


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_masked_tokens_alone_are_predicted():
    places, wanted = np.array([[1, 4], [0, 2], [3, 3]]), np.array([[2, 0], [1, 3], [-1, -1]])
    logp = log_softmax(X_BTD @ HEAD)
    nats = [-logp[0, 1, 2] - logp[0, 4, 0], -logp[1, 0, 1] - logp[1, 2, 3], 0]
    batch = {"masked_places": places, "masked_tokens": wanted}
    total, sums = masked.loss(MODEL, PARAMS, {}, CFG, batch, None)
    np.testing.assert_allclose([total, *sums["loss"]], [sum(nats), sum(nats), 4], rtol=1e-5)
    found = masked.evaluate(MODEL, PARAMS, {}, CFG, batch)
    np.testing.assert_allclose(found["nats"], nats, rtol=1e-5)
    assert found["predicted"].tolist() == [2, 2, 0]
    best = logp.argmax(-1)
    right = [(best[0, 1] == 2) + (best[0, 4] == 0), (best[1, 0] == 1) + (best[1, 2] == 3), 0]
    assert found["right"].tolist() == right


@pytest.mark.parametrize(
    ("objective", "batch", "scored"),
    [
        (classify, {"label": np.array([3, -1, 0])}, {(0, 0): 3, (2, 0): 0}),
        (
            tag,
            {"labels": np.array([[-1, 2, -1, 1, -1], [-1] * 5, [-1, -1, 0, -1, -1]])},
            {(0, 1): 2, (0, 3): 1, (2, 2): 0},
        ),
    ],
)
def test_labels_alone_are_predicted(objective, batch, scored):
    logp = log_softmax(X_BTD @ HEAD)
    cfg = SimpleNamespace(model=None, loss=classify.Config())
    nats = np.zeros(3)
    for (row, place), label in scored.items():
        nats[row] -= logp[row, place, label]
    total, sums = objective.loss(MODEL, PARAMS, {}, cfg, batch, None)
    np.testing.assert_allclose([total, sums["loss"][1]], [nats.sum(), len(scored)], rtol=1e-5)
    found = objective.evaluate(MODEL, PARAMS, {}, cfg, batch)
    np.testing.assert_allclose(found["nats"], nats, rtol=1e-5, atol=1e-7)
    assert found["labels"].tolist() == [sum(r == row for r, _ in scored) for row in range(3)]


REFUSED = [
    (("decoder", "masked", "masked_text"), "has no masked_logits. Families that fit: encoder"),
    (("encoder", "next_token", "masked_text"), "has no head, logits. Families that fit: decoder"),
    (("encoder", "masked", "text"), "Kinds that fit: masked_text"),
    (("decoder", "next_token", "masked_text"), "has no targets, weights"),
    (("ngram", "classify", "labelled"), "is counted and measured by the nats/token of"),
]


@pytest.mark.parametrize(("choices", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(choices, message):
    with pytest.raises(ValueError) as error:
        combination.check(base.get_config(*choices))
    assert message in str(error.value) and "\n" not in str(error.value)
