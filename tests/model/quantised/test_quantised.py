"""Tests formats, GPTQ and int8 inputs: what is stored is what was rounded; GPTQ loses less."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import families
from model.adapters import int8, nf4
from model.quantised import formats, gptq, grouped, inputs, model
from model.quantised.model import Quantisation
from model.quantised.rounded_inputs import RoundedInputs
from model.transformer.config import ModelConfig
from model.transformer.decoder import shapes

FAST = ("int8", "int3", "nf4")
DECODER = families.find("decoder")
KERNEL = np.random.default_rng(0).standard_normal((70, 24)).astype(np.float32)
CFG = ModelConfig(
    vocab_size=19, context_length=12, n_layers=2, d_model=24, n_heads=2, n_kv_heads=1, head_dim=12,
    d_ff=40, norm="rmsnorm", positions="rotary", activation="silu", gated=True,
    attention_bias=False, mlp_bias=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def params() -> dict:
    draw = np.random.default_rng(1).standard_normal
    return jax.tree.map(lambda leaf: draw(leaf.shape, np.float32) / 5, shapes(CFG))


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in formats.FORMATS],
)
def test_a_stored_kernel_is_the_rounded_one(name):
    """Also where groups, blocks and bytes do not divide its 70 inputs."""
    grid = formats.FORMATS[name](KERNEL, 32)
    codes = grid.codes(KERNEL)
    stored = grid.assembled(codes)
    np.testing.assert_allclose(stored.dense(jnp.float32), grid.values(codes), rtol=2e-7, atol=1e-8)
    other = codes.copy()
    other[69, 23] = (int(codes[69, 23]) + 1) % len(grid.levels)
    assert np.abs(grid.assembled(other).dense(jnp.float32) - grid.values(codes)).max() > 1e-3
    step = np.diff(grid.levels).max()
    assert (np.abs(grid.values(codes) - KERNEL) <= step / 2 * grid.scales * 1.01 + 1e-6).all()
    stacked = formats.stacked([stored, grid.assembled(other)])
    np.testing.assert_array_equal(stacked.dense(jnp.float32)[0], stored.dense(jnp.float32))


def test_int8_and_nf4_are_those_of_adapters():
    kernel = KERNEL[:64]
    for name, module in (("int8", int8), ("nf4", nf4)):
        grid = formats.FORMATS[name](kernel, 32)
        ours, theirs = grid.assembled(grid.codes(kernel)), module.quantised(kernel)
        wanted = np.asarray(theirs.dense(jnp.float32))
        # nf4 rounds by the block's own scale there, here by the scale that is stored.
        differ = np.abs(np.asarray(ours.dense(jnp.float32)) - wanted) > 1e-6
        assert differ.mean() <= {"int8": 0, "nf4": 0.01}[name]


def test_fewer_bits_take_less_and_lose_more():
    errors, sizes = [], []
    for bits in (6, 5, 4, 3, 2):
        grid = formats.FORMATS[f"int{bits}"](KERNEL, 32)
        errors.append(np.square(grid.values(grid.codes(KERNEL)) - KERNEL).mean())
        sizes.append(model.size(grid.assembled(grid.codes(KERNEL))))
    assert errors == sorted(errors) and sizes == sorted(sizes, reverse=True)
    assert formats.bits_per_weight("int4", 32, 64, 8) == 4.5
    assert formats.bits_per_weight("int8", 32, 64, 8) == 8.5
    assert grouped.levels(2).tolist() == [-1, 0, 1]


def correlated(rows: int = 400) -> np.ndarray:
    """Inputs [M, I] that depend on each other, as those of a model do."""
    draw = np.random.default_rng(2).standard_normal
    return (draw((rows, 12)) @ draw((12, 70)) + 0.3 * draw((rows, 70))).astype(np.float32)


@pytest.mark.parametrize("name", ["int3", "int8", "nf4"])
def test_gptq_changes_outputs_less(name):
    x_MI = correlated()
    hessian, grid = x_MI.T @ x_MI, formats.FORMATS[name](KERNEL, 32)

    def changed(codes: np.ndarray) -> float:
        return np.square(x_MI.astype(np.float64) @ (grid.values(codes) - KERNEL)).sum()

    better = changed(gptq.calibrated(KERNEL, hessian, grid))
    assert better < 0.5 * changed(grid.codes(KERNEL))
    # A control: the Hessian of other inputs is of no use.
    other = np.random.default_rng(3).permutation(70)
    assert changed(gptq.calibrated(KERNEL, hessian[np.ix_(other, other)], grid)) > better


def test_gptq_of_independent_inputs_is_nearest(monkeypatch):
    grid = formats.FORMATS["int4"](KERNEL, 32)
    codes = gptq.calibrated(KERNEL, 3 * np.eye(70, dtype=np.float32), grid)
    np.testing.assert_array_equal(codes, grid.codes(KERNEL))
    hessian = correlated().T @ correlated()
    whole = gptq.calibrated(KERNEL, hessian, grid)
    monkeypatch.setattr(gptq, "BLOCK", 8)  # blocks only change when errors are passed on
    assert (gptq.calibrated(KERNEL, hessian, grid) == whole).mean() > 0.999


def test_dead_inputs_do_no_harm():
    x_MI = correlated()
    x_MI[:, 7] = 0
    grid = formats.FORMATS["int4"](KERNEL, 32)
    codes = gptq.calibrated(KERNEL, x_MI.T @ x_MI, grid)
    np.testing.assert_array_equal(codes[7], grid.codes(KERNEL)[7])


def test_int8_inputs_are_an_integer_product():
    x = np.random.default_rng(4).standard_normal((2, 3, 70)).astype(np.float32)
    scale = np.abs(x).max(-1, keepdims=True) / 127
    rounded = np.round(x / scale) * scale
    for name in ("int8", "int4"):
        grid = formats.FORMATS[name](KERNEL, 32)
        kernel = grid.assembled(grid.codes(KERNEL))
        found = RoundedInputs(kernel).product(jnp.asarray(x), jnp.float32)
        wanted = rounded @ np.asarray(kernel.dense(jnp.float32))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        assert np.abs(found - x @ np.asarray(kernel.dense(jnp.float32))).max() > 1e-3


def test_hessians_are_of_what_each_linear_reads(params):
    """Checked on the first layer, whose inputs are the normed embedding."""
    tokens_BT = np.random.default_rng(5).integers(0, 19, (3, 12))
    cfg = dataclasses.replace(CFG, scan_layers=True, remat="full")
    found = inputs.hessians(
        DECODER, cfg, params, [{"tokens": x} for x in (tokens_BT[:1], tokens_BT[1:])]
    )
    parts = "attention/query attention/key attention/value attention/out mlp/up mlp/gate mlp/down"
    assert {name: len(layers) for name, layers in found.items()} == dict.fromkeys(parts.split(), 2)
    x = params["embed"]["embedding"][tokens_BT].reshape(-1, 24)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + CFG.norm_eps)
    x = x * params["blocks"]["attention_norm"]["scale"][0]
    np.testing.assert_allclose(found["attention/query"][0], x.T @ x, rtol=1e-4, atol=1e-3)
    assert found["mlp/down"][1].shape == (40, 40)


@pytest.mark.slow
def test_hessians_of_packed_rows_are_those_of_their_texts(params):
    """The control: read as one text, the row gives others."""
    tokens_BT = np.random.default_rng(6).integers(0, 19, (1, 12))
    one, two = tokens_BT[:, :5], tokens_BT[:, 5:10]
    row = {
        "tokens": tokens_BT,
        "segments": np.array([[1] * 5 + [2] * 5 + [0] * 2]),
        "positions": np.array([[*range(5), *range(5), 0, 0]]),
    }
    apart = inputs.hessians(DECODER, CFG, params, [{"tokens": one}, {"tokens": two}])
    packed = inputs.hessians(DECODER, CFG, params, [row])
    whole = inputs.hessians(DECODER, CFG, params, [{"tokens": tokens_BT[:, :10]}])
    wanted = np.asarray(apart["mlp/down"][1])
    np.testing.assert_allclose(packed["mlp/down"][1], wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(whole["mlp/down"][1]) - wanted).max() > 1e-3


@pytest.mark.parametrize(
    "how",
    [
        Quantisation("int4", 16),
        pytest.param(Quantisation("nf4", activations="int8"), marks=pytest.mark.slow),
    ],
)
def test_a_model_is_stored_and_restored(how, params):
    made = model.quantised(DECODER, CFG, params, how)
    arrays = model.stored(made)
    back = model.restored(DECODER, CFG, arrays, how)
    jax.tree.map(np.testing.assert_array_equal, back, made)
    assert model.size(made) < 0.5 * model.size(params)
    assert (back["embed"]["embedding"] == params["embed"]["embedding"]).all()
    del arrays["blocks"]["mlp"]["up"]["kernel"]["codes"]
    with pytest.raises(ValueError, match="blocks/mlp/up/kernel/codes"):
        model.restored(DECODER, CFG, arrays, how)


@pytest.mark.slow
def test_codes_give_the_logits_of_the_dense_weights(params):
    tokens_BT = np.arange(12)[None] % 19
    made = model.quantised(DECODER, CFG, params, Quantisation("int3", 8))
    run = jax.jit(lambda params: DECODER.hidden(CFG, params, {"tokens": tokens_BT}))
    found = run(made)
    np.testing.assert_allclose(found, run(model.dense(made)), rtol=1e-4, atol=1e-4)
    assert np.abs(found - run(params)).max() > 0.01


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(format="int9"), "format='int9' is unknown; use one of int8, int6"),
        (dict(format="int4", groups=0), "groups=0 is below 1"),
        (dict(format="int4", activations="int4"), "activations='int4' is unknown; use int8"),
        (dict(format="int4", calibrate="awq"), "calibrate='awq' is unknown; use gptq"),
    ],
)
def test_unknown_quantisations_are_refused(keys, message):
    with pytest.raises(ValueError) as error:
        Quantisation(**keys)
    assert message in str(error.value)
