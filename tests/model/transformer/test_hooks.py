"""Tests of hooks: they cost nothing unused, activations are right, edits change what they name."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.transformer import attention, decoder, family, layers
from model.transformer.config import ModelConfig
from tests.train.steps import decoder_step
from train import step

CFG = ModelConfig(
    vocab_size=31, context_length=16, n_layers=3, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=24, init_std=0.4, positions="rotary", window=4, window_pattern="LG",
)  # fmt: skip
SCANNED = dataclasses.replace(CFG, scan_layers=True, remat="full")
TOKENS = np.random.default_rng(0).integers(0, 31, (2, 10))
HYPER = dict(
    learning_rate=1e-2, warmup=2, decay=2, total=10, final=0.1, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=1.0,
)  # fmt: skip
# A textbook's example: the nine tokens "Emma hates games but she is a great friend", with queries
# and keys in four dimensions (person, animal, noun, adjective), scores, and weights to two digits.
Q = [
    [1.1, 0, 0, 0, 1.1, 0, 0.2, 0.5, 1.0],
    [0.7, 0, 0, 0, 0, 0, 0, 0, 0.9],
    [0.9, 1, 1, 0, 0, 0, 1, 1, 0.5],
    [0, 0, 0, 0, -1, 0, 0.5, 0, 1],
]
K = [
    [1.2, 0, 0, 0, 1, 0, 0, 0, 0],
    [0.8, 0, 0, 0, 0, 0, 0, 0, 0],
    [1, -0.5, 1, -1, 0, -0.5, -1, -1, 1],
    [0, 0, -1, 0, -1, 0, 0, 1.2, 0],
]
SCORES = {
    0: [2.78, -0.45, 0.90, -0.90, 1.10, -0.45, -0.90, -0.90, 0.90],
    8: [2.42, -0.25, -0.5, -0.5, 0, -0.25, -0.5, 0.7, 0.5],
}
MASKED = {
    1: [0.68, 0.32],
    2: [0.40, 0.19, 0.40],
    4: [0.23, 0.12, 0.20, 0.12, 0.34],
    6: [0.27, 0.11, 0.19, 0.09, 0.13, 0.11, 0.09],
    7: [0.26, 0.09, 0.19, 0.07, 0.15, 0.09, 0.07, 0.07],
    8: [0.30, 0.08, 0.07, 0.07, 0.09, 0.08, 0.07, 0.13, 0.12],
}
UNMASKED = {
    0: [0.61, 0.02, 0.09, 0.02, 0.11, 0.02, 0.02, 0.02, 0.09],
    8: [0.58, 0.04, 0.03, 0.03, 0.05, 0.04, 0.03, 0.10, 0.09],
}


def nine_tokens(scale: float, causal: bool) -> tuple[np.ndarray, np.ndarray]:
    """(scores, weights) [9, 9] that come out of Attention for one-hot tokens whose queries and keys
    are Q and K."""
    cfg = ModelConfig(
        vocab_size=9, context_length=9, n_layers=1, d_model=9, n_heads=1, n_kv_heads=1, head_dim=4,
        d_ff=8, positions="none", attention_bias=False, query_scale=scale,
    )  # fmt: skip
    kernels = {"query": np.array(Q).T, "key": np.array(K).T, "value": np.zeros((9, 4))}
    params = {name: {"kernel": jnp.float32(kernel)} for name, kernel in kernels.items()}
    params["out"] = {"kernel": jnp.zeros((4, 9))}
    module = attention.Attention(cfg, causal=causal)
    _, seen = module.apply(
        {"params": params}, jnp.eye(9)[None], np.arange(9)[None], mutable=["intermediates"]
    )
    found = seen["intermediates"]
    return np.asarray(found["scores"][0, 0]), np.asarray(found["weights"][0, 0])


def test_nine_tokens_have_the_printed_scores_and_weights():
    scores, unmasked = nine_tokens(scale=1.0, causal=False)
    for row, printed in SCORES.items():
        assert scores[row] == pytest.approx(printed, abs=1e-6)
    for row, printed in UNMASKED.items():
        assert unmasked[row] == pytest.approx(printed, abs=0.00501)
    _, weights = nine_tokens(scale=0.0, causal=True)  # 0: one over the root of the head's width
    for row, printed in MASKED.items():
        assert weights[row, : row + 1] == pytest.approx(printed, abs=0.00501)
        assert not weights[row, row + 1 :].any()
    # Controls: neither the mask nor the scale is without effect at these digits.
    _, unscaled = nine_tokens(scale=1.0, causal=True)
    _, all_seen = nine_tokens(scale=0.0, causal=False)
    assert np.abs(unscaled[2, :3] - MASKED[2]).max() > 0.03
    assert np.abs(all_seen[2, :3] - MASKED[2]).max() > 0.03


def lowered(cfg: ModelConfig, change=lambda params, batch, x: x) -> str:
    """The text of the lowered training step."""
    how = decoder_step(cfg)
    state = jax.eval_shape(
        lambda: step.init_state(how, {k: jnp.float32(v) for k, v in HYPER.items()}, jnp.uint32(0))
    )
    shape = jax.ShapeDtypeStruct(TOKENS.shape, jnp.int32)
    batch = {
        "tokens": shape,
        "targets": shape,
        "weights": jax.ShapeDtypeStruct(TOKENS.shape, jnp.float32),
    }
    return (
        jax.jit(lambda state, batch: step.train_step(how, state, batch))
        .lower(state, batch)
        .as_text()
    )


@pytest.mark.parametrize("cfg", [CFG, pytest.param(SCANNED, marks=pytest.mark.slow)])
def test_unused_hooks_change_nothing_in_the_training_step(cfg, monkeypatch):
    cfg = dataclasses.replace(cfg, n_layers=2 if cfg.scan_layers else 1)
    with_hooks = lowered(cfg)
    for module in (attention, layers, decoder):
        monkeypatch.setattr(module, "hooked", lambda module, name, x: x)
        monkeypatch.setattr(module, "watched", lambda module: False, raising=False)
    assert lowered(cfg) == with_hooks
    if not cfg.scan_layers:  # control: a hook that does something is seen
        monkeypatch.setattr(layers, "hooked", lambda module, name, x: 2 * x)
        assert lowered(cfg) != with_hooks


@functools.cache
def params() -> dict:
    return jax.jit(decoder.init, static_argnums=0)(CFG, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def seen(cfg, params):
    return family.activations(cfg, params, {"tokens": TOKENS})


@functools.partial(jax.jit, static_argnums=0)
def hidden(cfg, params):
    return family.hidden(cfg, params, {"tokens": TOKENS})


@functools.partial(jax.jit, static_argnums=0)
def edited(cfg, params, edits):
    return family.edited(cfg, params, {"tokens": TOKENS}, edits)


def test_activations_are_those_of_the_model():
    x_BTD, found = seen(CFG, params())
    np.testing.assert_allclose(x_BTD, hidden(CFG, params()), atol=1e-5)
    shapes = jax.tree.map(jnp.shape, found["blocks"])
    assert shapes == {
        "residual": (3, 2, 10, 16),
        "mlp": {"neurons": (3, 2, 10, 24)},
        "attention": {
            "scores": (3, 2, 4, 10, 10), "weights": (3, 2, 4, 10, 10), "heads": (3, 2, 10, 4, 6),
        },
    }  # fmt: skip
    weights = np.asarray(found["blocks"]["attention"]["weights"])
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    far = np.tril(np.ones((10, 10), bool), -4)  # outside a window of 4
    later = np.triu(np.ones((10, 10), bool), 1)
    assert not weights[:, :, :, later].any()
    assert not weights[::2, :, :, far].any() and weights[1, :, :, far].all()
    # The heads' outputs are the weights times the values, and the residual stream what `out` and
    # the MLP add: both are recomputed from the activations.
    block = decoder.layer_of(params()["blocks"], 0)
    n_BTD = layers.Norm(CFG).apply({"params": block["attention_norm"]}, found["embedded"])
    v_BSKC = (n_BTD @ block["attention"]["value"]["kernel"]).reshape(2, 10, 2, 6)
    v_BSHC = np.repeat(v_BSKC + block["attention"]["value"]["bias"].reshape(2, 6), 2, axis=2)
    heads = np.einsum("bhts,bshc->bthc", weights[0], v_BSHC)
    np.testing.assert_allclose(heads, found["blocks"]["attention"]["heads"][0], atol=1e-4)
    wrong = np.einsum("bhts,bshc->bthc", weights[0], np.tile(v_BSKC, (1, 1, 2, 1)))
    assert np.abs(wrong - heads).max() > 1e-2  # control: query heads of a group are neighbours


@pytest.mark.slow
def test_a_scan_has_the_activations_of_the_loop():
    for one, other in zip(
        jax.tree.leaves(seen(CFG, params())), jax.tree.leaves(seen(SCANNED, params())), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("cfg", [CFG, pytest.param(SCANNED, marks=pytest.mark.slow)])
def test_edits_change_what_they_name(cfg):
    before = hidden(CFG, params())
    every = lambda keep, unit, count: {  # noqa: E731
        "keep": jnp.full((3, 1, 1, count, *unit), keep),
        "add": jnp.zeros((3, 1, 1, count, *unit)),
    }
    both = lambda keep: {  # noqa: E731
        "blocks": {
            "attention": {"heads": every(keep, (1,), 4)}, "mlp": {"neurons": every(keep, (), 24)}
        }
    }  # fmt: skip
    np.testing.assert_allclose(edited(cfg, params(), both(1.0)), before, atol=1e-5)
    # Without heads and neurons the blocks add their biases only, which are zero in fresh
    # parameters: what is left is the embedding through the final norm.
    x_BTD = params()["embed"]["embedding"][TOKENS]
    alone = layers.Norm(CFG).apply({"params": params()["final_norm"]}, x_BTD)
    np.testing.assert_allclose(edited(cfg, params(), both(0.0)), alone, atol=1e-5)
    assert np.abs(alone - before).max() > 0.1


def test_the_states_after_each_layer_end_with_the_model_s_own():
    states = jax.jit(family.layers, static_argnums=0)(CFG, params(), {"tokens": TOKENS})
    assert states.shape == (4, 2, 10, 16)
    np.testing.assert_allclose(states[-1], hidden(CFG, params()), atol=1e-5)
    assert np.abs(states[-1] - states[-2]).max() > 0.1
