"""Tests the losses of pairs and of distillation against trl and tunix, and their invariants.

The golden file is tests/golden/preferences.npz. The models here give stated logits or rewards, so
that the losses and the handling of ragged rows are tested alone.
"""

import math
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from train.objectives import distill
from train.objectives.preference import dpo, pairs, reward

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "preferences.npz")
BETA, SMOOTHING, TEMPERATURE, HARD_WEIGHT, CENTRING = GOLDEN["numbers"].tolist()
PAIRS = len(GOLDEN["margin"])
# Given logits [R, T, V] are the parameters; the rows of a batch alternate chosen and rejected.
STATED = SimpleNamespace(
    hidden=lambda cfg, params, batch, key=None: params["logits"],
    head=lambda cfg, params: {},
    logits=lambda cfg, head, x: x,
    pooled=lambda cfg, params, batch, key=None: params["states"],
)
ORDER = np.arange(2 * PAIRS).reshape(2, PAIRS).T.ravel()  # golden rows: all chosen, then rejected


def golden_batch() -> dict:
    weights = np.pad(GOLDEN["answer"][:, 1:], ((0, 0), (0, 1))).astype(np.float32)
    tokens = GOLDEN["tokens"].astype(np.int32)
    fields = dict(zip(("chosen", "rejected"), np.split(tokens, 2), strict=True))
    fields |= dict(zip(("chosen_weights", "rejected_weights"), np.split(weights, 2), strict=True))
    reference = np.split(GOLDEN["reference"].astype(np.float32), 2)
    fields |= dict(zip(dpo.STORED, reference, strict=True))
    return fields | {"margin": GOLDEN["margin"].astype(np.float32)}


def mean_and_gradient(objective, loss, params, batch, frozen=None, models=()):
    """What the step descends: the sum over the weight, and its gradient."""
    cfg = SimpleNamespace(model=None, loss=loss, frozen=models)

    def mean(params):
        total, sums = objective.loss(STATED, params, frozen or {}, cfg, batch, None)
        return total / sums["loss"][1]

    value, gradient = jax.value_and_grad(mean)(params)
    return float(value), gradient


def close(value, gradient, name, tolerance=1e-6):
    np.testing.assert_allclose(value, GOLDEN[f"{name}/loss"], rtol=tolerance)
    np.testing.assert_allclose(gradient, GOLDEN[f"{name}/gradient"], rtol=tolerance, atol=tolerance)


def apart(value, gradient, name):
    """Both differ from the golden values by 10 tolerances or more."""
    assert abs(value / GOLDEN[f"{name}/loss"] - 1) > 1e-5
    assert np.abs(gradient - GOLDEN[f"{name}/gradient"]).max() > 1e-5


def golden_logits(order=ORDER) -> dict:
    return {"logits": jnp.asarray(GOLDEN["logits"][order], jnp.float32)}


def in_golden_order(gradient_R) -> np.ndarray:
    return np.asarray(gradient_R)[np.argsort(ORDER)]


@pytest.mark.parametrize("variant", ["sigmoid", "hinge", "ipo", "robust"])
def test_dpo_equals_trl(variant):
    smoothing = SMOOTHING if variant == "robust" else 0.0
    found = mean_and_gradient(
        dpo, dpo.Loss(variant, BETA, smoothing), golden_logits(), golden_batch()
    )
    close(found[0], in_golden_order(found[1]["logits"]), f"dpo/{variant}")
    other = mean_and_gradient(
        dpo, dpo.Loss(variant, BETA + 1e-3, smoothing), golden_logits(), golden_batch()
    )
    apart(other[0], in_golden_order(other[1]["logits"]), f"dpo/{variant}")


def test_dpo_with_smoothed_labels_equals_tunix():
    loss = dpo.Loss("sigmoid", BETA, SMOOTHING)
    value, gradient = mean_and_gradient(dpo, loss, golden_logits(), golden_batch())
    close(value, in_golden_order(gradient["logits"]), "tunix/dpo")
    loss = dpo.Loss("sigmoid", BETA, SMOOTHING + 1e-3)
    value, gradient = mean_and_gradient(dpo, loss, golden_logits(), golden_batch())
    apart(value, in_golden_order(gradient["logits"]), "tunix/dpo")


@pytest.mark.parametrize(("name", "centring"), [("plain", 0.0), ("whole", CENTRING)])
def test_reward_equals_trl(name, centring):
    batch = golden_batch()
    if name == "plain":
        batch["margin"] = np.zeros(PAIRS, np.float32)
    kernel = jnp.ones((1, 1))
    head = {"classes": {"kernel": kernel, "bias": jnp.zeros(1)}}
    states = {"states": jnp.asarray(GOLDEN["rewards"][ORDER, None], jnp.float32)}
    for more, check in ((0.0, close), (1e-3, apart)):
        loss = reward.Config(centring + more)
        value, gradient = mean_and_gradient(reward, loss, states | head, batch)
        check(value, in_golden_order(gradient["states"][:, 0]), f"reward/{name}")


def distilled(loss, logits=None) -> tuple:
    """Mean loss over the tokens of the golden answers, and its gradient."""
    batch = golden_batch()
    tokens, weights = pairs.joined(batch)
    inputs = {"tokens": tokens, "targets": jnp.roll(tokens, -1, axis=1), "weights": weights}
    frozen = {"teacher": {"logits": jnp.asarray(GOLDEN["teacher"][ORDER], jnp.float32)}}
    models = (("teacher", "stated", None),)
    given = golden_logits() if logits is None else logits
    return mean_and_gradient(distill, loss, given, inputs, frozen, models)


@pytest.fixture
def stated(monkeypatch):
    monkeypatch.setitem(distill.families.FAMILIES, "stated", STATED)


@pytest.mark.parametrize("name", ["forward", "reverse", "jensen_shannon"])
def test_distillation_equals_trl(stated, name):
    """trl does not multiply by τ²."""
    for more, check in ((0.0, close), (1e-2, apart)):
        loss = distill.Loss(name, 0.3, TEMPERATURE + more)
        value, gradient = distilled(loss)
        scale = (TEMPERATURE + more) ** 2
        check(value / scale, in_golden_order(gradient["logits"]) / scale, f"distill/{name}")


def test_distillation_with_targets_equals_tunix(stated):
    for more, check in ((0.0, close), (1e-3, apart)):
        loss = distill.Loss("forward", 0.5, TEMPERATURE, HARD_WEIGHT + more)
        value, gradient = distilled(loss)
        check(value, in_golden_order(gradient["logits"]), "tunix/distill")


def test_a_mixed_divergence_lies_between_the_two(stated):
    values = [distilled(distill.Loss(name, 0.25))[0] for name in ("forward", "reverse", "mixed")]
    assert values[2] == pytest.approx(0.75 * values[0] + 0.25 * values[1], rel=1e-6)
    assert abs(values[2] - values[0]) > 1e-4


def test_a_student_that_is_its_teacher_learns_nothing(stated):
    logits = {"logits": jnp.asarray(GOLDEN["teacher"][ORDER], jnp.float32)}
    for name in distill.DIVERGENCES:
        value, gradient = distilled(distill.Loss(name, 0.3, TEMPERATURE), logits)
        assert abs(value) < 1e-6 and np.abs(gradient["logits"]).max() < 1e-6
    value, gradient = distilled(distill.Loss("forward", hard_weight=0.5), logits)  # control
    assert value > 0.1 and np.abs(gradient["logits"]).max() > 1e-3


@pytest.mark.parametrize(("variant", "expected"), [("sigmoid", math.log(2)), ("hinge", 1.0)])
def test_dpo_begins_at_a_known_loss(variant, expected):
    batch = golden_batch()
    rows = pairs.joined(batch)
    logp = pairs.log_probabilities(STATED, golden_logits(), None, 0, *rows)
    begun = batch | dict(zip(dpo.STORED, pairs.apart(logp), strict=True))
    value, _ = mean_and_gradient(dpo, dpo.Loss(variant, BETA), golden_logits(), begun)
    assert value == pytest.approx(expected, abs=1e-6)
    value, _ = mean_and_gradient(dpo, dpo.Loss(variant, BETA), golden_logits(), batch)  # control
    assert abs(value - expected) > 1e-2


def test_segments_end_with_the_last_token_of_the_answer():
    weights, real = pairs.joined(golden_batch())[1], GOLDEN["real"][ORDER]
    np.testing.assert_array_equal(pairs.segments(weights), real)
    assert pairs.segments(jnp.zeros((1, 4))).tolist() == [[1, 0, 0, 0]]  # fills up a batch


def test_prompts_and_padding_have_no_gradient(stated):
    of_dpo = mean_and_gradient(dpo, dpo.Loss("sigmoid", BETA), golden_logits(), golden_batch())[1]
    weights = np.asarray(pairs.joined(golden_batch())[1])
    for gradient in (of_dpo, distilled(distill.Loss(hard_weight=0.5))[1]):
        assert np.abs(gradient["logits"])[weights == 0].max() == 0
        assert np.abs(gradient["logits"])[weights == 1].min() > 0  # control


@pytest.mark.slow
def test_pairs_that_fill_up_a_batch_count_for_nothing():
    batch = golden_batch()
    empty = {name: np.concatenate([x, np.zeros_like(x[:1])]) for name, x in batch.items()}
    params = {"states": jnp.asarray(GOLDEN["rewards"][ORDER, None], jnp.float32)}
    params |= {"classes": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}} | golden_logits()
    more = {"states": jnp.ones((2, 1)), "logits": jnp.ones((2, *GOLDEN["logits"].shape[1:]))}
    longer = params | {name: jnp.concatenate([params[name], x]) for name, x in more.items()}
    for objective, loss in ((dpo, dpo.Loss("ipo")), (reward, reward.Config(0.1))):
        whole = mean_and_gradient(objective, loss, params, batch)[0]
        assert mean_and_gradient(objective, loss, longer, empty)[0] == pytest.approx(whole)
        cfg = SimpleNamespace(model=None, loss=loss, frozen=())
        found = objective.evaluate(STATED, longer, {}, cfg, empty)
        assert found["pairs"].tolist() == [1] * PAIRS + [0]
        assert all(value[-1] == 0 for value in found.values())


def test_calibration_of_rewards_by_hand():
    """Two pairs with p = 3/4, one of them in the wrong order."""
    batch = {name: x[:2] for name, x in golden_batch().items()} | {"margin": np.zeros(2)}
    log3 = math.log(3)
    params = {"classes": {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}}
    params |= {"states": jnp.array([[log3], [0.0], [0.0], [log3]])}
    cfg = SimpleNamespace(model=None, loss=reward.Config())
    found = reward.evaluate(STATED, params, {}, cfg, batch)
    np.testing.assert_allclose(found["squared_error"], [1 / 16, 9 / 16], rtol=1e-6)
    np.testing.assert_allclose(found["confidence"], [3 / 4, 3 / 4], rtol=1e-6)
    assert found["right"].tolist() == [1, 0]
    np.testing.assert_allclose(found["nats"], [math.log(4 / 3), math.log(4)], rtol=1e-6)


def section(**keys):
    train = dict(z_loss=0.0, label_smoothing=0.0, loss_chunk=0) | keys.pop("train", {})
    model = dict(context_length=8, n_classes=keys.pop("n_classes", 1))
    return ConfigDict(dict(train=train, objective=keys, model=model))


DPO, DISTILL = vars(dpo.Config()) | {"name": "dpo"}, vars(distill.Config()) | {"name": "distill"}
REWARD = {"name": "reward", "centring": 0.0}
REFUSED = [
    (dpo, DPO | {"variant": "slic"}, "objective.variant='slic' is unknown; use one of sigmoid"),
    (dpo, DPO | {"beta": 0.0}, "objective.beta=0.0 must be above 0"),
    (dpo, DPO | {"beta": float("nan")}, "objective.beta=nan must be above 0"),
    (dpo, DPO | {"label_smoothing": 0.5}, "objective.label_smoothing=0.5 must be at least 0"),
    (dpo, DPO | {"variant": "ipo", "label_smoothing": 0.1}, "has no effect with objective.variant"),
    (dpo, DPO | {"train": {"z_loss": 0.1}}, "train.z_loss=0.1 has no effect"),
    (dpo, DPO | {"train": {"loss_chunk": 3}}, "train.loss_chunk=3 does not divide"),
    (reward, REWARD | {"n_classes": 2}, "model.n_classes=2, but a reward is the output of one"),
    (reward, REWARD | {"centring": -1.0}, "objective.centring=-1.0 is below 0"),
    (reward, REWARD | {"train": {"loss_chunk": 4}}, "train.loss_chunk=4 has no effect"),
    (distill, DISTILL | {"divergence": "tv"}, "objective.divergence='tv' is unknown"),
    (distill, DISTILL | {"temperature": 0.0}, "objective.temperature=0.0 must be above 0"),
    (distill, DISTILL | {"hard_weight": 1.5}, "objective.hard_weight=1.5 must be from 0 to 1"),
    (distill, DISTILL | {"mix": 1.0}, "objective.mix=1.0 must be above 0 and below 1"),
    (distill, DISTILL | {"train": {"label_smoothing": 0.1}}, "train.label_smoothing=0.1 has no"),
]


@pytest.mark.parametrize(("objective", "keys", "message"), REFUSED)
def test_bad_settings_are_refused_in_one_line(objective, keys, message):
    with pytest.raises(ValueError) as error:
        objective.configure(section(**keys))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_good_settings_are_read():
    assert dpo.configure(section(**DPO)) == dpo.Loss()
    assert reward.configure(section(**REWARD)) == reward.Config()
    assert distill.configure(section(**DISTILL)) == distill.Loss()
