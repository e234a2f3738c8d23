"""Tests samplers against their definitions and against transformers."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.generation import samplers
from model.generation.samplers import Sampler, as_arrays, temperature
from model.generation.samplers import top_k as keep_top_k
from model.generation.samplers import top_p as keep_top_p

LOGITS = np.random.default_rng(0).normal(0, 3, (40, 23)).astype(np.float32)
NONE = np.zeros(LOGITS.shape, bool)
# These tests spend most of their time on compilation.
jitted = jax.jit(samplers.process, compiler_options={"xla_backend_optimization_level": 0})


def process(logits, sampler, seen):
    return np.asarray(jitted(logits, as_arrays(sampler), seen))


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parents[2] / "golden" / "samplers.npz") as file:
        arrays = dict(file)
    seen = np.zeros(arrays["logits"].shape, bool)
    np.put_along_axis(seen, arrays["input_ids"], True, axis=1)
    return arrays, seen


def difference(ours, theirs):
    """The largest difference of kept logits; inf if the kept tokens differ."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    if (np.isfinite(ours) != np.isfinite(theirs)).any():
        return np.inf
    kept = np.isfinite(ours)
    return np.abs(ours[kept] - theirs[kept]).max()


NAMES = ("temperature", "top_k", "top_p", "min_p", "typical", "repetition_penalty")


@pytest.mark.parametrize("name", NAMES)
def test_each_is_that_of_transformers(golden, name):
    """The control is another value of the parameter, which must give another result."""
    arrays, seen = golden
    found = {}
    for key in (key for key in arrays if key.startswith(f"{name}:")):
        value = float(key.partition(":")[2])
        value = int(value) if name == "top_k" else value
        found[key] = process(arrays["logits"], Sampler(**{name: value}), seen)
        assert difference(found[key], arrays[key]) < 1e-5, key
    first, *_, last = found
    assert difference(found[first], arrays[last]) > 1e-3


def test_the_chain_is_that_of_generate(golden):
    arrays, seen = golden
    logits = arrays["logits"]
    values = {name: arrays[f"chain/{name}"].item() for name in NAMES}
    assert difference(process(logits, Sampler(**values), seen), arrays["chain"]) < 1e-5
    for name in ("temperature", "repetition_penalty", "top_k", "top_p"):
        without = values | {name: getattr(Sampler(), name)}
        assert difference(process(logits, Sampler(**without), seen), arrays["chain"]) > 1e-3, name


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.mark.parametrize("k", [0, 1, 5, 22, 23, 99])
def test_top_k_keeps_the_k_largest(k):
    kept = np.isfinite(keep_top_k(LOGITS, k))
    for row, kept_row in zip(LOGITS, kept, strict=True):
        assert set(np.flatnonzero(kept_row)) == set(np.argsort(-row)[: k or 23])


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_fewest_that_reach_p(p):
    kept = np.isfinite(keep_top_p(LOGITS, p))
    for row, kept_row in zip(LOGITS.astype(np.float64), kept, strict=True):
        order, probability = np.argsort(-row), softmax(row)
        count = next(n for n in range(1, 24) if probability[order[:n]].sum() >= p)
        assert set(np.flatnonzero(kept_row)) == set(order[:count])


@pytest.mark.parametrize("p", [0.02, 0.3, 1.0])
def test_min_p_keeps_what_is_likely_enough(p):
    kept = np.isfinite(samplers.min_p(LOGITS, p))
    for row, kept_row in zip(LOGITS.astype(np.float64), kept, strict=True):
        assert (kept_row == (softmax(row) >= p * softmax(row).max())).all()


@pytest.mark.parametrize("p", [1e-6, 0.3, 0.9])
def test_typical_keeps_the_nearest_to_the_entropy(p):
    kept = np.isfinite(samplers.typical(LOGITS, p))
    for row, kept_row in zip(LOGITS.astype(np.float64), kept, strict=True):
        probability = softmax(row)
        surprise = -np.log(probability)
        order = np.argsort(np.abs(surprise - (probability * surprise).sum()))
        count = next(n for n in range(1, 24) if probability[order[:n]].sum() >= p)
        assert set(np.flatnonzero(kept_row)) == set(order[:count])


def test_what_is_kept_keeps_its_logits():
    cuts = {"top_k": 4, "top_p": 0.7, "min_p": 0.1, "typical": 0.7}
    for name, value in cuts.items():
        kept = np.asarray(getattr(samplers, name)(LOGITS, value))
        assert (kept[np.isfinite(kept)] == LOGITS[np.isfinite(kept)]).all(), name
        assert np.isneginf(kept).any() and np.isfinite(kept).any(1).all(), name


def test_the_defaults_change_nothing():
    assert (process(LOGITS, Sampler(), ~NONE) == LOGITS).all()


def test_temperature_divides_and_0_leaves_the_largest():
    np.testing.assert_allclose(temperature(LOGITS, 2.5), LOGITS / 2.5, rtol=1e-6)
    cold = np.asarray(temperature(LOGITS, 0.0))
    assert (np.isfinite(cold).sum(1) == 1).all() and (cold.argmax(1) == LOGITS.argmax(1)).all()


def test_processors_follow_one_another():
    """Temperature comes first, so it changes how many tokens top-p keeps."""
    sampler = Sampler(temperature=3.0, top_k=9, top_p=0.6)
    kept = keep_top_p(keep_top_k(LOGITS / 3, 9), 0.6)
    np.testing.assert_allclose(process(LOGITS, sampler, NONE), kept, rtol=1e-6)
    other = keep_top_p(keep_top_k(LOGITS, 9), 0.6) / 3
    assert (np.isfinite(kept) != np.isfinite(other)).any()


def test_only_what_occurred_is_penalised():
    seen = NONE.copy()
    seen[:, 3] = True
    found = np.asarray(samplers.repetition_penalty(LOGITS, seen, 2.0))
    expected = np.where(LOGITS[:, 3] < 0, LOGITS[:, 3] * 2, LOGITS[:, 3] / 2)
    np.testing.assert_allclose(found[:, 3], expected)
    assert (np.delete(found, 3, 1) == np.delete(LOGITS, 3, 1)).all()


def test_greedy_takes_the_largest_after_the_penalty():
    keys = jax.random.split(jax.random.key(0), len(LOGITS))
    seen = LOGITS == LOGITS.max(1, keepdims=True)
    sampler = Sampler(temperature=0.0, repetition_penalty=1e9)
    drawn = np.asarray(samplers.draw(keys, jnp.asarray(LOGITS), sampler, seen))
    assert (drawn == np.argsort(LOGITS)[:, -2]).all()
