"""Tests equalities between models and inputs, with controls that must differ, on tiny models."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.kernels import masks
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, init
from model.transformer.positions import angles, rotary

LEARNED = ModelConfig(
    vocab_size=31, context_length=16, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=24, init_std=0.4,
)  # fmt: skip
ROTARY = dataclasses.replace(
    LEARNED, positions="rotary", norm="rmsnorm", gated=True, activation="silu", n_kv_heads=4
)
TOKENS = np.random.default_rng(0).permutation(31)[None, :12]
# These tests spend most of their time on compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
both = pytest.mark.parametrize("cfg", [LEARNED, ROTARY], ids=["learned", "rotary"])
rotary_slow = pytest.mark.parametrize(
    "cfg",
    [LEARNED, pytest.param(ROTARY, marks=pytest.mark.slow)],
    ids=["learned", "rotary"],
)


@functools.partial(jit, static_argnames="cfg")
def fresh(cfg, seed=0):
    return init(cfg, jax.random.key(seed))


@functools.partial(jit, static_argnames="cfg")
def _logits(params, cfg, tokens, positions, segments):
    return Decoder(cfg).apply({"params": params}, tokens, positions, segments)


ORDER, ONE = np.arange(12)[None], np.ones((1, 12), np.int32)


def logits(params, cfg, tokens=TOKENS, positions=ORDER, segments=ONE):
    """All inputs have one shape, so that each config compiles once."""
    return np.asarray(_logits(params, cfg, tokens, positions, segments))


def difference(x, y):
    return float(np.abs(np.asarray(x) - np.asarray(y)).max())


def test_masks_are_these_tables():
    query, key = jnp.array([[0, 1, 2]]), jnp.array([[0, 1, 2, -1]])
    table = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert masks.causal(query, key)[0].astype(int).tolist() == table
    segments = jnp.array([[1, 1, 2]])
    table = [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert masks.same_segment(segments, segments)[0].astype(int).tolist() == table


def reach(cfg):
    """[T, T] |d logits at t / d embedding at s|. All tokens differ, so each s has its own row."""
    cfg = dataclasses.replace(cfg, tie_embeddings=False)
    params = fresh(cfg)
    weight_V = jnp.linspace(-1, 1, cfg.vocab_size)

    def scores_T(table):
        changed = params | {"embed": {"embedding": table}}
        return Decoder(cfg).apply({"params": changed}, TOKENS)[0] @ weight_V

    jacobian_TVD = jit(jax.jacrev(scores_T))(params["embed"]["embedding"])
    return np.abs(jacobian_TVD[:, TOKENS[0]]).max(-1)


@rotary_slow
def test_no_gradient_comes_from_the_future(cfg):
    found = reach(cfg)
    assert (np.triu(found, 1) == 0).all() and (found[np.tril_indices(12)] > 1e-6).all()


def test_a_mask_that_leaks_one_token_shows(monkeypatch):
    sound = masks.causal
    monkeypatch.setattr(masks, "causal", lambda query, key: sound(query + 1, key))
    assert np.diagonal(reach(LEARNED), 1).min() > 1e-6


def second_alone(params, cfg):
    """Logits of the second document, tokens 7 to 11, when it comes first in the sequence."""
    return logits(params, cfg, np.roll(TOKENS, -7, axis=1))[:, :5]


@rotary_slow
def test_packed_is_separate(cfg):
    params = fresh(cfg)
    positions = np.array([[*range(7), *range(5)]])
    segments = np.array([[1] * 7 + [2] * 5])
    apart = np.concatenate([logits(params, cfg)[:, :7], second_alone(params, cfg)], axis=1)
    assert difference(logits(params, cfg, TOKENS, positions, segments), apart) < 1e-5
    assert difference(logits(params, cfg, TOKENS, positions), apart) > 1e-2
    assert difference(logits(params, cfg), apart) > 1e-2


def test_packing_restarts_learned_positions():
    """With absolute positions, segments alone are not enough; for rotary positions they are."""
    segments = np.array([[1] * 7 + [2] * 5])
    for cfg, cares in ((LEARNED, True), (ROTARY, False)):
        params = fresh(cfg)
        together = logits(params, cfg, segments=segments)[:, 7:]
        moved = difference(together, second_alone(params, cfg))
        assert moved > 1e-2 if cares else moved < 1e-5


def with_heads_repeated(params, cfg, repeat):
    """Parameters for n_kv_heads = n_heads: `repeat` expands axis -2 of keys and values."""
    params = jax.tree.map(lambda x: x, params)
    for name in ("key", "value"):
        layer = params["blocks"]["attention"][name]
        for leaf, x in layer.items():
            heads = x.reshape(*x.shape[:-1], cfg.n_kv_heads, cfg.head_dim)
            layer[leaf] = repeat(heads).reshape(*x.shape[:-1], -1)
    return params


@pytest.mark.parametrize("K", [1, 2])
def test_grouped_queries_are_repeated_keys(K):
    cfg = dataclasses.replace(LEARNED, n_kv_heads=K)
    whole = dataclasses.replace(LEARNED, n_kv_heads=4)
    params = fresh(cfg)
    expected = logits(params, cfg)
    repeated = with_heads_repeated(params, cfg, lambda x: jnp.repeat(x, 4 // K, axis=-2))
    assert difference(logits(repeated, whole), expected) < 1e-5
    other = with_heads_repeated(params, cfg, lambda x: jnp.concatenate([x] * (4 // K), axis=-2))
    assert (difference(logits(other, whole), expected) > 1e-2) == (K == 2)


@both
def test_shifting_all_positions(cfg):
    """Logits change with learned positions; with rotary positions they depend on distances only."""
    params = fresh(cfg)
    moved = difference(logits(params, cfg, positions=ORDER + 4), logits(params, cfg))
    assert moved < 1e-4 if cfg.positions == "rotary" else moved > 1e-2


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotary_scores_depend_on_the_distance(layout):
    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    cfg = dataclasses.replace(ROTARY, head_dim=8, rope_theta=100.0, rope_layout=layout)

    def turned(x, position):
        angle, factor = angles(cfg, jnp.array([[position]]), local=False, length=1)
        return rotary(x, angle, factor, layout)

    def score(m, n):
        return float((turned(q, m) * turned(k, n)).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert abs(score(9, 4) - score(9, 5)) > 1e-2
    assert abs(score(9, 4) - score(4, 9)) > 1e-2
    assert score(7, 7) == pytest.approx(float((q * k).sum()), abs=1e-5)


def test_tied_head_is_the_transposed_embedding():
    params, free = fresh(LEARNED), dataclasses.replace(LEARNED, tie_embeddings=False)
    assert "head" not in params
    kernel, expected = params["embed"]["embedding"].T, logits(params, LEARNED)
    untied = lambda kernel: logits(params | {"head": {"kernel": kernel}}, free)  # noqa: E731
    assert difference(untied(kernel), expected) < 1e-5
    assert difference(untied(1.01 * kernel), expected) > 1e-2


WIDE = dataclasses.replace(
    LEARNED, vocab_size=400, d_model=96, head_dim=24, n_kv_heads=4, d_ff=192, n_layers=8,
    init_std=0.02,
)  # fmt: skip
INITS = {
    # init: (std of query, key, value, up; of out; of down)
    "gpt2": (0.02, 0.02 / 4, 0.02 / 4),
    "normal": (0.02, 0.02, 0.02),
    "fan_in": (96**-0.5, 96**-0.5, 192**-0.5),
}


@pytest.mark.parametrize("name", INITS)
def test_initial_weights(name):
    """GPT-2 scales residual outputs by 1/sqrt(2L). With 8 × 9216 draws one sigma is 0.3 %."""
    params = fresh(dataclasses.replace(WIDE, init=name))
    blocks, (inner, out, down) = params["blocks"], INITS[name]
    kernels = {n: blocks["attention"][n]["kernel"] for n in ("query", "key", "value", "out")}
    kernels |= {n: blocks["mlp"][n]["kernel"] for n in ("up", "down")}
    for kernel, value in kernels.items():
        expected = {"out": out, "down": down}.get(kernel, inner)
        for layer in value:
            assert float(layer.std()) == pytest.approx(expected, rel=0.04)
        assert difference(value[0], value[1]) > expected  # layers don't share their draws
    assert float(params["embed"]["embedding"].std()) == pytest.approx(0.02, rel=0.03)
    assert not np.any(blocks["mlp"]["up"]["bias"]) and np.all(blocks["mlp_norm"]["scale"] == 1)


def test_initial_loss_is_that_of_a_uniform_guess():
    """Small embeddings give small logits, so the loss is ln V; control: large embeddings."""

    cfg = dataclasses.replace(WIDE, n_layers=2)
    tokens, targets = np.random.default_rng(2).integers(0, 400, (2, 8, 12))

    def loss(params):
        logprobs = jax.nn.log_softmax(_logits(params, cfg, tokens, ORDER, ONE))
        return -float(np.take_along_axis(np.asarray(logprobs), targets[..., None], 2).mean())

    params = fresh(cfg)
    assert loss(params) == pytest.approx(np.log(400), rel=0.01)
    params["embed"]["embedding"] *= 25
    assert loss(params) > 1.5 * np.log(400)


@jit
def with_dropout(params, key):
    cfg = dataclasses.replace(LEARNED, dropout=0.3)
    return Decoder(cfg, train=True).apply({"params": params}, TOKENS, rngs={"dropout": key})


def test_dropout_is_for_training():
    params, plain = fresh(LEARNED), logits(fresh(LEARNED), LEARNED)
    a, b = with_dropout(params, jax.random.key(1)), with_dropout(params, jax.random.key(2))
    assert difference(a, with_dropout(params, jax.random.key(1))) == 0
    assert difference(a, b) > 1e-2 and difference(a, plain) > 1e-2
    assert difference(logits(params, dataclasses.replace(LEARNED, dropout=0.3)), plain) == 0


def test_every_layer_drops_its_own():
    class Keys(Decoder):
        def __call__(self, tokens):
            return jax.random.key_data(self._dropout_keys())

    cfg = dataclasses.replace(LEARNED, dropout=0.3)
    first, second = Keys(cfg, train=True).apply(
        {"params": fresh(LEARNED)}, TOKENS, rngs={"dropout": jax.random.key(0)}
    )
    assert (first != second).any()


@rotary_slow
def test_bfloat16_computes_the_same_function_over_float32_parameters(cfg):
    half = dataclasses.replace(cfg, dtype="bfloat16")
    params = fresh(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    params = jax.tree.map(
        lambda x: x / 4 if x.ndim > 2 else x, params
    )  # smaller weights amplify rounding less
    rough, exact = logits(params, half), logits(params, cfg)
    assert rough.dtype == jnp.float32  # logits are never rounded
    moved = difference(rough.astype(jnp.float32), exact) / float(np.abs(exact).max())
    assert 1e-4 < moved < 0.03
