"""Tests that cached decoding equals the full forward pass, for models of many kinds.

Sequences run past the window; prompts have unequal lengths and are padded on the left or right.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from model.generation.sample import decode, prefill
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, empty_caches, shapes

BASE = ModelConfig(
    vocab_size=37, context_length=24, n_layers=1, d_model=16, n_heads=4, n_kv_heads=2, head_dim=6,
    d_ff=24, init_std=0.4,
)  # fmt: skip
ROTARY = dataclasses.replace(
    BASE, positions="rotary", norm="rmsnorm", activation="silu", gated=True, attention_bias=False,
    mlp_bias=False, tie_embeddings=False, rope_theta=100.0,
)  # fmt: skip
CASES = {
    "gpt2": BASE,
    "gemma3": dataclasses.replace(
        ROTARY, n_layers=2, window=5, window_pattern="LG", rope_theta_local=30.0,
        rope_scaling="linear", rope_factor=4.0, qk_norm=True, norm_position="both",
        norm_offset=True, embedding_scale=True, attention_softcap=2.0, logit_softcap=3.0,
        query_scale=0.3, activation="gelu_tanh", tie_embeddings=True,
    ),
    "phi3": dataclasses.replace(
        ROTARY, window=7, rope_scaling="longrope", rope_original_context=12, rope_fraction=0.7,
        rope_short_factors=(1.0, 1.1), rope_long_factors=(2.0, 7.0),
    ),
    "palm": dataclasses.replace(
        ROTARY, norm_position="parallel", rope_layout="interleaved", n_kv_heads=1,
        rope_scaling="llama3", rope_factor=8.0, rope_original_context=12,
    ),
    "alibi": dataclasses.replace(
        BASE, n_layers=2, positions="alibi", norm_position="post", window=6, window_pattern="GL"
    ),
    "sinusoidal": dataclasses.replace(BASE, positions="sinusoidal", n_kv_heads=4),
}  # fmt: skip
# These tests spend most of their time on compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
fill = jit(prefill, static_argnames=("cfg", "length", "at_once"))
step = jit(decode, static_argnames="cfg")
T = BASE.context_length
LENGTHS, WIDTH = (11, 3, 8), 12
TOKENS = np.random.default_rng(3).integers(0, 37, (len(LENGTHS), T)).astype(np.int32)


@functools.cache
def model(case):
    """Random parameters and the logits [B, T, V] of the full forward."""
    cfg = CASES[case]
    rng = np.random.default_rng(5)

    def hard(path, x):
        mean = float(path[-1].key == "scale" and not cfg.norm_offset)
        return rng.normal(mean, 0.3, x.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(hard, shapes(cfg))
    full = jit(lambda p, t: Decoder(cfg).apply({"params": p}, t))(params, TOKENS)
    return params, np.asarray(full)


def prompts(left):
    """Prompts of LENGTHS, padded to WIDTH on the left or right with token 36."""
    tokens = np.full((len(LENGTHS), WIDTH), 36, np.int32)
    positions = np.full((len(LENGTHS), WIDTH), -1, np.int32)
    for row, length in enumerate(LENGTHS):
        place = slice(WIDTH - length, None) if left else slice(length)
        tokens[row, place], positions[row, place] = TOKENS[row, :length], np.arange(length)
    return tokens, positions


def error(case, *, left=False, at_once=1, spoil=lambda caches: caches, positions=None):
    """max |decoded - full| over all positions from the end of the prompt to that of the context."""
    cfg, (params, full) = CASES[case], model(case)
    tokens, true_positions = prompts(left)
    positions = true_positions if positions is None else positions
    logits, caches = fill(params, cfg, tokens, positions, T, at_once)
    rows, at = np.arange(len(LENGTHS)), np.array(LENGTHS)
    worst = np.abs(logits - full[rows, at - 1]).max()
    while at.max() + at_once <= T:
        more = at[:, None] + np.arange(at_once)
        caches = spoil(caches)
        logits, caches = step(params, cfg, TOKENS[rows[:, None], more], more, caches)
        worst = max(worst, np.abs(logits - full[rows[:, None], more]).max())
        at = at + at_once
    return worst


LEFT = ("gemma3", "palm", "sinusoidal")
# Slow: sinusoidal positions use the same code as learned ones.
QUICK = [
    pytest.param(case, marks=[pytest.mark.slow] if case == "sinusoidal" else []) for case in CASES
]


@pytest.mark.parametrize("case", QUICK)
def test_cached_decoding_is_the_full_forward(case):
    assert np.abs(model(case)[1]).max() > 0.5
    assert error(case, left=case in LEFT) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_on_the_other_side_and_several_tokens_at_a_time(case):
    assert error(case, left=case not in LEFT, at_once=3) < 1e-5


def stale(caches):
    return [c.replace(v_BKSC=c.v_BKSC.at[:, :, 2].set(0)) for c in caches]


def test_control_a_stale_slot():
    assert error("gpt2", spoil=stale) > 1e-2


def test_control_padding_that_is_seen():
    _, positions = prompts(left=False)
    seen = np.where(positions < 0, np.arange(WIDTH), positions)
    # Logits are read at the last position, so only rows without padding could agree.
    assert error("gpt2", positions=seen) > 1e-2


def test_control_a_ring_one_slot_short():
    """The oldest key of the window is overwritten."""

    def shorten(caches):
        cut = lambda x, axis: np.take(x, range(6), axis)  # noqa: E731
        return [
            c.replace(k_BKSC=cut(c.k_BKSC, 2), v_BKSC=cut(c.v_BKSC, 2),
                      positions_BS=cut(c.positions_BS, 1))
            for c in caches
        ]  # fmt: skip

    rings = {case: [c.positions_BS.shape[1] for c in empty_caches(CASES[case], 1, T)]
             for case in ("gemma3", "phi3")}  # fmt: skip
    assert rings == {"gemma3": [5, T], "phi3": [7]}
    assert error("phi3", spoil=shorten) > 1e-2


def test_control_longrope_by_the_prompts_own_length():
    """The factors depend on the length of the whole context, so a shorter context changes them."""
    (params, full), (tokens, positions) = model("phi3"), prompts(left=False)
    after, rows = np.array(LENGTHS) - 1, np.arange(len(LENGTHS))
    wrong, _ = fill(params, CASES["phi3"], tokens, positions, 12, 1)
    assert np.abs(wrong - full[rows, after]).max() > 1e-2
