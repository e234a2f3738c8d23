"""Tests word2vec: its losses against loops over pairs, and its FLOPs against XLA's."""

import math

import jax
import numpy as np
import pytest

from model.embeddings import word2vec
from model.embeddings.word2vec import Config
from train.objectives.words import full_softmax, negative_sampling
from train.step import StepConfig

V, D, T, K = 11, 6, 32, 3
OBJECTIVES = {"negative_sampling": negative_sampling, "full_softmax": full_softmax}


def config(method: str, **keys) -> Config:
    return Config(
        **dict(vocab_size=V, context_length=T, d_model=D, method=method, window=2, negatives=K)
        | keys
    )


@pytest.fixture(scope="module")
def batch() -> dict:
    rng = np.random.default_rng(0)
    return {
        "tokens": rng.integers(V, size=(2, T), dtype=np.int32),
        "segments": np.array([[1] * 15 + [2] * 17, [3] * 29 + [0] * 3], np.int32),
        "reach": rng.integers(1, 3, (2, T), dtype=np.int32),
        "negatives": rng.integers(V, size=(2, T, K), dtype=np.int32),
    }


@pytest.fixture(scope="module")
def params() -> dict:
    rng = np.random.default_rng(1)
    return {
        name: {"embedding": rng.normal(size=(V, D)).astype(np.float32)}
        for name in ("input", "output")
    }


def loss(name: str, cfg: Config, params: dict, batch: dict) -> tuple[float, float]:
    """(the sum of the loss, the number of pairs) of our objective."""
    step = StepConfig(cfg, None, "word2vec", name)
    run = jax.jit(lambda p, b: OBJECTIVES[name].loss(word2vec, p, {}, step, b, jax.random.key(0)))
    total, sums = run(params, batch)
    return float(total), float(sums["loss"][1])


def predictions(cfg: Config, params: dict, batch: dict):
    """(row, place, the vector that predicts, the predicted word) of each pair, by loops."""
    for row, place in np.ndindex(2, T):
        words, segments = batch["tokens"][row], batch["segments"][row]
        around = [
            other
            for other in range(T)
            if other != place
            and abs(other - place) <= batch["reach"][row, place]
            and segments[other] == segments[place] > 0
        ]
        inputs = params["input"]["embedding"]
        if cfg.method == "cbow" and around:
            yield row, place, inputs[words[around]].mean(0), words[place]
        elif cfg.method == "skipgram":
            yield from ((row, place, inputs[words[place]], words[other]) for other in around)


def by_loops(name: str, cfg: Config, params: dict, batch: dict) -> tuple[float, float]:
    out, total, pairs = params["output"]["embedding"], 0.0, 0
    softplus = lambda x: math.log1p(math.exp(x))  # noqa: E731
    for row, place, h, word in predictions(cfg, params, batch):
        pairs += 1
        if name == "full_softmax":
            total += np.log(np.exp(out @ h).sum()) - out[word] @ h
            continue
        total += softplus(-out[word] @ h)
        total += sum(softplus(out[n] @ h) for n in batch["negatives"][row, place])
    return total, pairs


@pytest.mark.parametrize("method", ["skipgram", "cbow"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_that_of_a_loop_over_pairs(name, method, params, batch):
    cfg = config(method)
    ours, theirs = loss(name, cfg, params, batch), by_loops(name, cfg, params, batch)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    whole = batch | {"segments": np.ones_like(batch["segments"])}  # pairs across documents
    assert abs(by_loops(name, cfg, params, whole)[0] / theirs[0] - 1) > 1e-3


def test_flops_by_hand():
    count = lambda cfg: [word2vec.flops(cfg)[name] for name in ("chinchilla", "palm", "6nd")]  # noqa: E731
    # D = 6 and window 2: 3 words around a word on average or 4, and 16 + 4 near its block.
    assert count(config("skipgram")) == [6 * 6 * (3 + 3), 6 * 6 * (20 + 3), 6 * 2 * 11 * 6]
    assert count(config("skipgram", dynamic_window=False))[0] == 6 * 6 * (4 + 3)
    assert count(config("skipgram", negatives=0))[0] == 6 * 6 * (3 + 11)
    assert count(config("cbow"))[:2] == [4 * 6 * 3 + 6 * 6 * (1 + 3), 4 * 6 * 20 + 6 * 6 * (1 + 3)]


@pytest.mark.parametrize("method", ["skipgram", "cbow"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_flops_are_those_that_xla_counts(name, method):
    """Within 15 %: XLA also counts masks and the sums of gradients."""
    k = 5 if name == "negative_sampling" else 0
    sizes = dict(vocab_size=300, context_length=64, d_model=256, window=4, negatives=k)
    cfg = Config(method=method, dynamic_window=False, **sizes)
    step = StepConfig(cfg, None, "word2vec", name)
    one = jax.ShapeDtypeStruct((2, 64), np.int32)
    batch = dict.fromkeys(("tokens", "segments", "reach"), one)
    batch["negatives"] = jax.ShapeDtypeStruct((2, 64, k), np.int32)
    params = jax.eval_shape(lambda: word2vec.init(cfg, jax.random.key(0)))
    total = lambda p, b: OBJECTIVES[name].loss(word2vec, p, {}, step, b, None)[0]  # noqa: E731
    counted = (
        jax.jit(jax.value_and_grad(total)).lower(params, batch).compile().cost_analysis()["flops"]
    )
    assert 1 <= counted / (word2vec.flops(cfg)["palm"] * 2 * 64) < 1.15
