"""Tests logits and gradients against transformers, with every switch flipped as a control."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import parameters
from model.huggingface import config_json, weights
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder
from tests.model import golden

VARIANTS = (  # slow: other cases test the same families and switches
    *("gpt2_exact_gelu", "gpt2_published", "llama_linear", "llama_bias", "qwen2_window"),
    *("qwen3_window", "relu_opt", "parallel_interleaved_gptj"),
)
CASES = [
    pytest.param(name, marks=pytest.mark.slow) if name in VARIANTS else name
    for name in (*golden.HF, *golden.CONFIGS)
]
UNSCALED = dict(
    rope_scaling="none", rope_factor=1.0, rope_original_context=0, rope_low_frequency=1.0,
    rope_high_frequency=4.0,
)  # fmt: skip
# For each switch: cases that depend on it and the change to make; the parameters stay the same.
CONTROLS = {
    "norm": [("cohere", dict(norm="rmsnorm"))],
    "norm_eps": [
        (case, dict(norm_eps=1e-6))
        for case in ("gpt2", "llama", "mistral", "gemma2", "phi3", "qwen3", "cohere")
    ],
    "norm_bias": [("gpt2", dict(norm_bias=False))],
    "norm_offset": [("gemma", dict(norm_offset=False))],
    "norm_position": [
        ("gemma2", dict(norm_position="pre")),
        ("llama", dict(norm_position="parallel")),
    ],
    "qk_norm": [("qwen3", dict(qk_norm=False))],
    "positions": [
        ("gpt2", dict(positions="none")),
        ("alibi_mpt", dict(positions="none")),
        ("sinusoidal_ctrl", dict(positions="none")),
    ],
    "rope_theta": [("llama", dict(rope_theta=600.0)), ("gemma3", dict(rope_theta=100.0))],
    "rope_theta_local": [
        ("gemma3", dict(rope_theta_local=120.0)),
        ("gemma3", dict(rope_theta_local=0.0)),
    ],
    "rope_layout": [
        ("cohere", dict(rope_layout="half")),
        ("parallel_interleaved_gptj", dict(rope_layout="half")),
        ("llama", dict(rope_layout="interleaved")),
    ],
    "rope_fraction": [("phi3", dict(rope_fraction=0.4)), ("phi3", dict(rope_fraction=1.0))],
    "rope_scaling": [
        ("llama_gqa", UNSCALED),
        ("llama_gqa", UNSCALED | dict(rope_scaling="linear", rope_factor=8.0)),
    ],
    "rope_factor": [("llama_linear", dict(rope_factor=3.5)), ("llama_gqa", dict(rope_factor=6.0))],
    "rope_original_context": [
        ("llama_gqa", dict(rope_original_context=24)),
        ("phi3_longrope", dict(rope_original_context=16)),  # changes the attention factor
    ],
    "rope_low_frequency": [("llama_gqa", dict(rope_low_frequency=1.0))],
    "rope_high_frequency": [("llama_gqa", dict(rope_high_frequency=4.0))],
    "rope_long_factors": [("phi3_longrope", dict(rope_long_factors=(1.5, 2.0, 3.5, 6.0, 6.0)))],
    "window": [("mistral", dict(window=8)), ("mistral", dict(window=0)), ("phi3", dict(window=8))],
    "window_pattern": [
        ("gemma2", dict(window_pattern="GL")),
        ("gemma3", dict(window_pattern="LLLLG")),
        ("qwen2_window", dict(window_pattern="L")),
    ],
    "query_scale": [("gemma2", dict(query_scale=0.0))],
    "attention_softcap": [
        ("gemma2", dict(attention_softcap=2.2)),
        ("gemma2", dict(attention_softcap=0.0)),
    ],
    "logit_softcap": [("gemma2", dict(logit_softcap=3.3)), ("gemma2", dict(logit_softcap=0.0))],
    "logit_scale": [("cohere", dict(logit_scale=40**-0.5))],
    "activation": [
        ("gpt2", dict(activation="gelu")),
        ("gpt2_exact_gelu", dict(activation="gelu_tanh")),
        ("llama", dict(activation="gelu")),
        ("relu_opt", dict(activation="silu")),
        ("relu2_nemotron", dict(activation="relu")),
    ],
    "gated": [("llama", dict(gated=False))],
    "attention_bias": [
        ("gpt2", dict(attention_bias=False)),
        ("qwen2", dict(attention_bias=False, out_bias=True)),
    ],
    "out_bias": [("llama_bias", dict(out_bias=False))],
    "mlp_bias": [("gpt2", dict(mlp_bias=False))],
    "embedding_scale": [("gemma", dict(embedding_scale=False))],
    "tie_embeddings": [("llama", dict(tie_embeddings=True))],
}  # fmt: skip
# Fields that need no control: sizes, which the weights determine, and fields that matter only for
# training or speed. rope_short_factors has a separate test below; parametrisations are tested in
# tests/train/optimizers/test_mup.py.
OTHERS = {
    *("vocab_size", "context_length", "n_layers", "d_model", "n_heads", "n_kv_heads", "head_dim"),
    *("d_ff", "dropout", "init", "init_std", "embedding_std", "dtype", "rope_short_factors"),
    *("attention", "scan_layers", "remat", "n_classes"),
    *("parametrization", "base_width", "base_head_dim", "base_depth"),
}


def case_of(name: str) -> tuple[ModelConfig, dict]:
    return golden.checkpoint(name) if name in golden.HF else golden.switch(name)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_transformers(name):
    assert np.abs(golden.expected(name)["logits"]).max() > 0.9
    assert golden.distance(name, *case_of(name)) < golden.TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"), [pair for pairs in CONTROLS.values() for pair in pairs], ids=str
)
def test_a_flipped_switch_is_seen(name, change):
    cfg, params = case_of(name)
    flipped = dataclasses.replace(cfg, **change)
    assert golden.distance(name, flipped, params) > 10 * golden.TOLERANCE


def test_every_switch_has_a_control():
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    assert fields <= set(CONTROLS) | OTHERS
    for key, pairs in CONTROLS.items():
        assert all(getattr(case_of(name)[0], key) != change[key] for name, change in pairs)


def test_query_heads_are_grouped_in_turn():
    """Control: heads 0 and 3 are swapped, so that each gets the other's keys."""
    cfg, params = golden.checkpoint("llama_gqa")
    leaves = parameters.flat(params)
    order = np.array([3, 1, 2, 0, 4, 5])
    for path, axis in (("query/kernel", 2), ("out/kernel", 1)):
        kernel = np.asarray(leaves[f"blocks/attention/{path}"])
        heads = np.split(kernel, cfg.n_heads, axis)
        swapped = np.concatenate([heads[i] for i in order], axis)
        leaves[f"blocks/attention/{path}"] = swapped
    error = golden.distance("llama_gqa", cfg, parameters.nested(leaves))
    assert error > 10 * golden.TOLERANCE


def test_longrope_is_short_within_the_original_context():
    cfg, params = golden.checkpoint("phi3_longrope")
    arrays = golden.expected("phi3_longrope")
    tokens, want = arrays["tokens"][:, :10], arrays["short_logits"]
    other = dataclasses.replace(cfg, rope_short_factors=(1.0, 1.1, 1.3, 1.7, 1.9))
    assert np.abs(golden.logits(cfg, params, tokens) - want).max() < golden.TOLERANCE
    assert np.abs(golden.logits(other, params, tokens) - want).max() > 10 * golden.TOLERANCE


def test_gemmas_embedding_scale_is_rounded_to_the_type():
    cfg, params = golden.checkpoint("gemma")
    arrays = golden.expected("gemma")
    cfg = dataclasses.replace(cfg, dtype="bfloat16")
    embedded = Decoder(cfg).apply(
        {"params": params}, arrays["tokens"], jnp.zeros((2, 24), jnp.int32), method="_embedded"
    )
    want = arrays["embedded_bfloat16"]
    np.testing.assert_array_equal(np.asarray(embedded, np.float32), want)
    exact = np.asarray(params["embed"]["embedding"])[arrays["tokens"]] * 30**0.5
    assert (np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float32) != want).any()


@pytest.mark.parametrize(
    "name",
    ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpt2", "gemma2"))],
)
def test_gradients_are_those_of_torch(name, tmp_path):
    cfg, params = golden.checkpoint(name)
    arrays = golden.expected(name)

    def loss(params):
        logits = Decoder(cfg).apply({"params": params}, arrays["tokens"])[:, :-1]
        logprobs = jax.nn.log_softmax(logits)
        targets = arrays["tokens"][:, 1:, None]
        return -jnp.take_along_axis(logprobs, targets, axis=-1).mean()

    with jax.default_matmul_precision("highest"):
        value, gradients = golden.jit(jax.value_and_grad(loss))(params)
    assert abs(value - arrays["loss"]) < 1e-5
    weights.save(tmp_path / "gradients", cfg, gradients)  # gives them transformers' names
    found = golden.read_all(tmp_path / "gradients")
    errors = {
        path: np.abs(found[path] - want).max() / np.abs(want).max()
        for path, want in ((p.removeprefix("gradient/"), a) for p, a in arrays.items() if "/" in p)
    }
    assert set(errors) == set(found)
    assert max(errors.values()) < 1e-4, errors
    assert all(np.abs(array).max() > 1e-4 for array in found.values())  # not all zero


@pytest.mark.parametrize(
    "name",
    [name for name in golden.HF if (golden.FOLDER / f"hf/{name}/older_config.json").exists()],
)
def test_the_older_config_means_the_same(name):
    newer, older = golden.config_json(name), golden.config_json(name, older=True)
    assert config_json.read(older) == config_json.read(newer)
    assert json.dumps(older) != json.dumps(newer)
