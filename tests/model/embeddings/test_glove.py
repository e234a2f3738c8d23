"""Tests GloVe: its gradient against the formula by hand, and its counts."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from model.embeddings import glove as family
from train.objectives import glove
from train.step import StepConfig

V, D = 7, 5
CFG = family.Config(V, D)
STEP = StepConfig(CFG, glove.Config(x_max=10.0, alpha=0.75), "glove", "glove")


@pytest.fixture(scope="module")
def batch() -> dict:
    rng = np.random.default_rng(0)
    words = rng.integers(V, size=(2, 2, 6), dtype=np.int32)
    count = rng.uniform(0.2, 30, (2, 6)).astype(np.float32)
    count[1, 4:] = 0  # padding
    return {"row": words[0], "column": words[1], "count": count}


@pytest.fixture(scope="module")
def params() -> dict:
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    return {name: {"embedding": draw(V, D), "bias": draw(V)} for name in ("word", "context")}


def by_hand(params: dict, batch: dict, x_max: float, alpha: float) -> tuple[float, dict]:
    """J of eq. 8 and its gradient, entry by entry, in float64."""
    w, c = ({k: v.astype(np.float64) for k, v in params[name].items()} for name in params)
    gradient = {name: {k: np.zeros(v.shape) for k, v in params[name].items()} for name in params}
    total = 0.0
    for i, j, x in zip(*(batch[name].ravel() for name in glove.FIELDS), strict=True):
        if x == 0:
            continue
        weight = min(1.0, (x / x_max) ** alpha)
        error = w["embedding"][i] @ c["embedding"][j] + w["bias"][i] + c["bias"][j] - np.log(x)
        total += weight * error**2
        gradient["word"]["embedding"][i] += 2 * weight * error * c["embedding"][j]
        gradient["context"]["embedding"][j] += 2 * weight * error * w["embedding"][i]
        gradient["word"]["bias"][i] += 2 * weight * error
        gradient["context"]["bias"][j] += 2 * weight * error
    return total, gradient


def worst(ours: dict, theirs: dict) -> float:
    apart = jax.tree.map(lambda a, b: np.abs(a - b).max() / np.abs(b).max(), ours, theirs)
    return max(jax.tree.leaves(apart))


def test_the_gradient_is_that_of_the_formula(params, batch):
    total = lambda p: glove.loss(family, p, {}, STEP, batch, None)  # noqa: E731
    (ours, sums), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(params)
    loss, by_formula = by_hand(params, batch, 10.0, 0.75)
    assert abs(float(ours) / loss - 1) < 1e-5 and float(sums["loss"][1]) == 10
    assert worst(gradient, by_formula) < 1e-5
    assert worst(gradient, by_hand(params, batch, 10.0, 0.76)[1]) > 1e-3


def test_counts_by_hand():
    assert family.parameters(CFG) == {"word_vectors": 35, "context_vectors": 35, "biases": 14}
    assert family.flops(CFG)["palm"] == 6 * 5 + 4
    assert family.flops(CFG)["6nd"] == 6 * 84


def test_flops_are_those_that_xla_counts():
    """Within 15 %: XLA also counts the sums of gradients and the weights."""
    cfg = family.Config(300, 256)
    step = StepConfig(cfg, glove.Config(), "glove", "glove")
    one = jax.ShapeDtypeStruct((2, 64), np.int32)
    batch = {"row": one, "column": one, "count": jax.ShapeDtypeStruct((2, 64), np.float32)}
    params = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    total = lambda p, b: glove.loss(family, p, {}, step, b, None)[0]  # noqa: E731
    counted = jax.jit(jax.value_and_grad(total)).lower(params, batch).compile().cost_analysis()
    assert 1 <= counted["flops"] / (family.flops(cfg)["palm"] * 2 * 64) < 1.15


def test_a_weight_that_is_none_is_refused():
    config = lambda **keys: SimpleNamespace(objective=SimpleNamespace(**keys))  # noqa: E731
    with pytest.raises(ValueError, match=r"objective\.x_max=0 must be above 0"):
        glove.configure(config(x_max=0, alpha=0.75))
    with pytest.raises(ValueError, match=r"objective\.alpha=-1 must be 0 or more"):
        glove.configure(config(x_max=1, alpha=-1))
