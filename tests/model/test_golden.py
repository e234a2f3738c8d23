"""This file compares logits with those that PyTorch computed (tests/golden/make_golden.py)."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from model.config import ModelConfig
from model.transformer import Decoder

FOLDER = Path(__file__).parent.parent / "golden"
TOLERANCE = 2e-5  # logits are about 3; float32 alone leaves 5e-6

GPT2 = ModelConfig(
    vocab_size=29, context_length=12, n_layers=3, d_model=20, n_heads=4, n_kv_heads=4, head_dim=6,
    d_ff=48,
)  # fmt: skip
LLAMA = dataclasses.replace(
    GPT2, d_ff=36, norm="rmsnorm", norm_eps=1e-6, positions="rotary", activation="silu",
    gated=True, attention_bias=False, mlp_bias=False, tie_embeddings=False,
)  # fmt: skip
CASES = {
    "gpt2": GPT2,
    "llama": LLAMA,
    "llama_gqa": dataclasses.replace(LLAMA, n_kv_heads=2),
}
# Compiling is what takes these tests their time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# Each changes the function and no parameter; it must move logits by ten times the tolerance.
CONTROLS = {
    "gpt2": [
        dict(activation="gelu"),
        dict(activation="silu"),
        dict(norm_eps=1e-3),
        dict(positions="none"),
    ],
    "llama": [
        dict(activation="gelu_tanh"),
        dict(norm_eps=1e-3),
        dict(norm="layernorm", norm_bias=False),
        dict(rope_theta=5e3),
        dict(positions="none"),
    ],
    "llama_gqa": [dict(rope_theta=5e3)],
}


@functools.cache
def golden(name):
    """(params nested by path, tokens [T], logits [T, V])."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    tokens, logits, params = arrays.pop("tokens"), arrays.pop("logits"), {}
    for path, value in arrays.items():
        *folders, leaf = path.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return params, tokens, logits


def error(name, cfg, params=None):
    golden_params, tokens, logits = golden(name)
    apply = jit(lambda p, t: Decoder(cfg).apply({"params": p}, t[None])[0])
    return np.abs(apply(params or golden_params, tokens) - logits).max()


@pytest.mark.parametrize("name", CASES)
def test_logits_are_pytorchs(name):
    assert np.abs(golden(name)[2]).max() > 1
    assert error(name, CASES[name]) < TOLERANCE


@pytest.mark.parametrize(
    "name, change", [(name, change) for name in CONTROLS for change in CONTROLS[name]], ids=str
)
def test_controls(name, change):
    assert error(name, dataclasses.replace(CASES[name], **change)) > 10 * TOLERANCE


def test_query_heads_are_grouped_in_turn():
    """Control: heads 0 and 1 share keys, not 0 and 2."""
    params = jax.tree.map(np.copy, golden("llama_gqa")[0])
    kernel = params["blocks"]["attention"]["query"]["kernel"]  # [L, D, H * C]
    swapped = kernel.reshape(3, 20, 4, 6)[:, :, [0, 2, 1, 3]].reshape(kernel.shape)
    params["blocks"]["attention"]["query"]["kernel"] = swapped
    assert error("llama_gqa", CASES["llama_gqa"], params) > 10 * TOLERANCE
