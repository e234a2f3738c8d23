"""Tests what saves memory in training: losses in chunks, bfloat16 moments, donated state."""

import dataclasses
import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import base
from model.transformer.config import ModelConfig
from tests.train.steps import decoder_step
from train.objectives import loss_in_chunks, next_token
from train.optimizers import moments
from train.step import eval_sums, init_state, loss_sums, train_chunk

MODEL = ModelConfig(
    vocab_size=37, context_length=12, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, head_dim=8,
    d_ff=32, init_std=0.3,
)  # fmt: skip
HYPER = dict(
    learning_rate=1e-2, warmup=2, decay=2, total=20, final=0.1, b1=0.9, b2=0.999, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
HYPER = {k: jnp.float32(v) for k, v in HYPER.items()}
QUICKLY = {"xla_backend_optimization_level": 0}
jit = functools.partial(jax.jit, compiler_options=QUICKLY)


def batch(*shape):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, MODEL.vocab_size, shape).astype(np.int32)
    weights = rng.random(shape).astype(np.float32)
    return {"tokens": tokens, "targets": np.roll(tokens, -1, -1), "weights": weights}


def difference(a, b):
    """The largest difference of two trees, relative to the largest value of each leaf."""
    each = jax.tree.map(
        lambda x, y: np.abs(x - y).max() / max(np.abs(x).max(), 1e-9), *jax.device_get((a, b))
    )
    return float(max(jax.tree.leaves(each)))


def fresh(cfg):
    return jit(lambda: init_state(cfg, HYPER, jnp.uint32(0)).params)()


@functools.partial(jit, static_argnums=1)
def loss_and_gradients(params, cfg, weights):
    data = batch(3, 12) | {"weights": weights}
    return jax.value_and_grad(loss_sums, has_aux=True)(params, {}, cfg, data, jax.random.key(0))


def in_chunks(cfg, chunk):
    return dataclasses.replace(cfg, loss=dataclasses.replace(cfg.loss, loss_chunk=chunk))


FREE = dataclasses.replace(MODEL, tie_embeddings=False, logit_softcap=3.0, logit_scale=0.7)
MUP = dataclasses.replace(MODEL, parametrization="mup", base_width=8, base_head_dim=8)


@pytest.mark.parametrize(
    ("cfg", "chunk"),
    [
        (decoder_step(MUP, next_token.Config(z_loss=1e-2, label_smoothing=0.1)), 3),
        (decoder_step(FREE, next_token.Config(z_loss=1e-2)), 4),
        pytest.param(decoder_step(MODEL), 1, marks=pytest.mark.slow),
    ],
    ids=["mup", "free", "one"],
)
def test_a_loss_in_chunks_is_the_plain_one(cfg, chunk):
    params = fresh(cfg)
    data = batch(3, 12)
    plain = loss_and_gradients(params, cfg, data["weights"])
    chunked = in_chunks(cfg, chunk)
    assert difference(plain, loss_and_gradients(params, chunked, data["weights"])) < 2e-6
    # Control: other weights give another loss.
    other = loss_and_gradients(params, chunked, data["weights"][:, ::-1])
    assert difference(plain, other) > 1e-3


def test_an_evaluation_in_chunks_is_the_plain_one():
    cfg, data = decoder_step(FREE), batch(2, 3, 12)
    evaluate, params = jit(eval_sums, static_argnums=0), fresh(cfg)
    plain = evaluate(cfg, params, {}, data)
    chunked = in_chunks(cfg, 4)
    assert difference(plain, evaluate(chunked, params, {}, data)) < 1e-6
    other = data | {"weights": data["weights"][..., ::-1]}  # control
    assert difference(plain, evaluate(chunked, params, {}, other)) > 1e-3


def test_chunks_are_cut_and_joined():
    """Every chunk spans the whole sequence: its tokens are T / chunk apart."""
    x_BTD = jnp.arange(2 * 6 * 3).reshape(2, 6, 3)
    chunks = loss_in_chunks.split(x_BTD, 2)
    assert chunks.shape == (3, 2, 2, 3)
    assert (chunks[1] == x_BTD[:, jnp.array([1, 4])]).all()
    assert (loss_in_chunks.join(chunks) == x_BTD).all()


@pytest.mark.parametrize(
    "cfg", [MODEL, pytest.param(FREE, marks=pytest.mark.slow)], ids=["tied", "free"]
)
def test_a_loss_in_chunks_takes_an_eighth_of_the_memory(cfg):
    """Compares the compiler's temporary memory for a vocabulary of 128k; nothing is executed."""
    large = dataclasses.replace(cfg, vocab_size=131_072, context_length=256, n_layers=1)
    data = {k: jax.ShapeDtypeStruct((4, 256), v.dtype) for k, v in batch(1, 1).items()}

    def temporary(chunk):
        step_cfg = decoder_step(large, next_token.Config(loss_chunk=chunk, z_loss=1e-4))
        shapes = jax.eval_shape(lambda: init_state(step_cfg, HYPER, jnp.uint32(0)).params)
        grad = jax.grad(lambda p, data: loss_sums(p, {}, step_cfg, data, jax.random.key(0))[0])
        return jax.jit(grad).lower(shapes, data).compile().memory_analysis().temp_size_in_bytes

    plain, chunked = temporary(0), temporary(8)
    assert chunked <= plain / 8
    logits = 4 * 256 * 131_072 * 4
    assert plain >= logits  # control: without chunks all logits are in memory


def test_bad_chunks_are_refused():
    config = base.get_config()
    config.model.context_length, config.train.loss_chunk = 12, 5
    message = r"train.loss_chunk=5 does not divide .*=12; use 0, or .*6"
    with pytest.raises(ValueError, match=message):
        next_token.configure(config)
    config.train.loss_chunk = 6  # control
    assert next_token.configure(config).loss_chunk == 6


def test_rounding_at_random_is_right_on_average():
    x = jnp.full(20_000, 1 + 1 / 1024, jnp.float32)  # between 1 and 1 + 1/128 in bfloat16
    drawn = moments.rounded(x, jax.random.key(0))
    assert set(np.asarray(drawn, np.float32).tolist()) == {1.0, 1 + 1 / 128}
    assert float(drawn.astype(jnp.float32).mean()) == pytest.approx(1 + 1 / 1024, abs=1e-4)
    assert float(x.astype(jnp.bfloat16)[0]) == 1  # control: rounding to nearest always gives 1
    kept = jnp.array([jnp.inf, -jnp.inf, 0.0, -2.0, 3e-39])
    assert (moments.rounded(kept, jax.random.key(0))[:4] == kept[:4].astype(jnp.bfloat16)).all()
    assert jnp.isnan(moments.rounded(jnp.array([jnp.nan]), jax.random.key(0))).all()


def second_moment(monkeypatch=None):
    """The mean bfloat16 second moment, from 1, after 300 steps with gradient 1.5 and b2 = 0.999."""
    if monkeypatch:
        monkeypatch.setattr(moments, "rounded", lambda x, key: x.astype(jnp.bfloat16))
    adam = moments.stored(optax.scale_by_adam(b1=0.9, b2=0.999), "bfloat16")
    state = adam.init({"w": jnp.zeros(64)})
    settled = state.inner._replace(nu={"w": jnp.full(64, 1.0, jnp.bfloat16)})
    gradient = {"w": jnp.full(64, 1.5)}

    def one(state, _):
        return adam.update(gradient, state, None)[1], None

    state, _ = jit(lambda s: jax.lax.scan(one, s, length=300))(state._replace(inner=settled))
    return float(state.inner.nu["w"].astype(jnp.float32).mean())


def test_second_moments_in_bfloat16_go_on_moving(monkeypatch):
    expected = 2.25 - (2.25 - 1) * 0.999**300
    assert second_moment() == pytest.approx(expected, rel=0.02)
    assert second_moment(monkeypatch) == 1.0  # control: with rounding to nearest it does not change


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "lion", "sgd", "muon"])
def test_moments_are_stored_in_half_the_bytes(optimizer):
    def sizes(moments):
        cfg = decoder_step(MODEL, optimizer=optimizer, moments=moments)
        state = jax.eval_shape(lambda: init_state(cfg, HYPER, jnp.uint32(0)))
        leaves = [x for x in jax.tree.leaves(state.opt_state) if x.size > 1]
        assert {x.dtype for x in leaves} == {jnp.dtype(moments)}
        assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
        return sum(x.size * x.dtype.itemsize for x in leaves)

    assert sizes("bfloat16") * 2 == sizes("float32") > 0


def trained(cfg):
    """(losses of 20 steps on four sequences, bytes of reused buffers, bytes of the state)."""
    data = jax.tree.map(lambda x: np.repeat(x, 20, 0), batch(1, 4, 12))
    state = jit(init_state, static_argnums=0)(cfg, HYPER, jnp.uint32(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # "Some donated buffers were not usable"
        compiled = train_chunk.lower(cfg, state, data, jnp.int32(20)).compile(QUICKLY)
        size = sum(x.nbytes for x in jax.tree.leaves(state))
        losses = np.asarray(compiled(state, data, jnp.int32(20))[1]["loss"])
    return losses, compiled.memory_analysis().alias_size_in_bytes, size


@pytest.mark.slow
def test_training_with_short_moments_and_a_donated_state():
    few = dataclasses.replace(  # few parameter arrays: each compiles separate rounding code
        MODEL, norm="rmsnorm", positions="rotary", attention_bias=False, mlp_bias=False
    )
    losses, reused, size = trained(decoder_step(few))
    short, reused_short, size_short = trained(decoder_step(few, moments="bfloat16"))
    assert (
        reused >= size and reused_short >= size_short
    )  # the new state reuses the old one's buffers
    assert size_short < 0.7 * size
    assert losses[-1] < 0.7 * losses[0] and abs(short[-1] / losses[-1] - 1) < 0.05
    assert 0 < np.abs(short[1:] - losses[1:]).max()  # control: the computations differ


def test_bfloat16_gradients_of_tables_are_summed_in_float32():
    """Adding 1 in bfloat16 257 times gives 256."""
    from model.transformer.layers import rows

    index = jnp.zeros(257, jnp.int32)
    table = jnp.ones((2, 1), jnp.bfloat16)
    ours = jax.grad(lambda t: rows(t, index).sum().astype(jnp.float32))(table)
    assert float(ours[0, 0]) == float(jnp.float32(257).astype(jnp.bfloat16))
    more = jnp.zeros(600, jnp.int32)
    ours = jax.grad(lambda t: rows(t, more).sum().astype(jnp.float32))(table)
    plain = jax.grad(lambda t: t[more].sum().astype(jnp.float32))(table)
    assert float(ours[0, 0]) == 600 and float(plain[0, 0]) != 600  # control
