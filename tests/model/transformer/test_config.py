"""Tests that ModelConfig has the defaults of configs/base.py and refuses invalid values."""

from dataclasses import replace

import pytest

from configs import base
from model.transformer.config import BASE_SIZES, CHOICES, DEFAULTS, ModelConfig, derive

CFG = ModelConfig(64, 16, 2, 32, 4, 2, 8, 64)
ROTARY = replace(CFG, positions="rotary")
LONG = dict(rope_scaling="longrope", rope_original_context=8, rope_long_factors=(1.0,) * 4)


def test_keys_and_defaults_are_those_of_base():
    """In the same order too. Derived sizes are 0 in both."""
    assert list(DEFAULTS.items()) == list(base.decoder().items())
    derived = derive(base.decoder() | dict(vocab_size=64))
    assert (derived.n_kv_heads, derived.head_dim, derived.d_ff) == (4, 32, 512)


# Error message: (config, refused change, the nearest allowed change).
REFUSED = {
    "model.n_layers=0 must be at least 1": (CFG, dict(n_layers=0), dict(n_layers=1)),
    "model.n_kv_heads=3 does not divide model.n_heads=4; use 1, 2, 4": (
        CFG, dict(n_kv_heads=3), dict(n_kv_heads=4),
    ),
    "model.dropout=1.0 must be at least 0 and below 1": (CFG, dict(dropout=1.0), dict(dropout=0.9)),
    "model.norm_eps=0 must be above 0": (CFG, dict(norm_eps=0), dict(norm_eps=1e-9)),
    "model.window=-1 must be at least 0": (CFG, dict(window=-1), dict(window=1)),
    "model.window_pattern='LX' must be made of the letters L, G": (
        CFG, dict(window_pattern="LX"), dict(window_pattern="LG"),
    ),
    "model.dtype='float16' is unknown; use one of float32, bfloat16": (
        CFG, dict(dtype="float16"), dict(dtype="bfloat16"),
    ),
    "model.rope_theta=5.0 has no effect with model.positions='learned'; it needs rotary": (
        CFG, dict(rope_theta=5.0), dict(rope_theta=10_000.0),
    ),
    "model.rope_factor=2.0 has no effect with .*='none'; it needs linear or llama3": (
        ROTARY, dict(rope_factor=2.0), dict(rope_factor=2.0, rope_scaling="linear"),
    ),
    "model.rope_factor=0.5 must be at least 1": (
        ROTARY, dict(rope_factor=0.5, rope_scaling="linear"), dict(rope_scaling="linear"),
    ),
    "model.norm_offset=True has no effect with model.norm='layernorm'; it needs rmsnorm": (
        CFG, dict(norm_offset=True), dict(norm_offset=True, norm="rmsnorm"),
    ),
    "model.out_bias=False has no effect with model.attention_bias=False; it needs True": (
        CFG, dict(attention_bias=False, out_bias=False), dict(out_bias=False),
    ),
    "model.base_depth=2 has no effect with .*='mup'; it needs completep": (
        CFG,
        dict(parametrization="mup", base_width=8, base_head_dim=4, base_depth=2),
        dict(parametrization="completep", base_width=8, base_head_dim=4, base_depth=2),
    ),
    "model.base_width=0, but .*'mup' scales from a base shape; give the width": (
        CFG,
        dict(parametrization="mup", base_head_dim=4),
        dict(parametrization="mup", base_head_dim=4, base_width=8),
    ),
    "model.d_model=33 is odd, but model.positions='sinusoidal' .* use 34": (
        CFG, dict(d_model=33, positions="sinusoidal"), dict(d_model=34, positions="sinusoidal"),
    ),
    "model.rope_fraction=1.5 must be above 0 and at most 1": (
        ROTARY, dict(rope_fraction=1.5), dict(rope_fraction=0.5),
    ),
    "times model.rope_fraction=0.4 is 3, which rotary positions cannot split into pairs": (
        ROTARY, dict(rope_fraction=0.4), dict(rope_fraction=0.3),
    ),
    "model.rope_original_context=0, but model.rope_scaling='llama3' extends it": (
        ROTARY,
        dict(rope_scaling="llama3"),
        dict(rope_scaling="llama3", rope_original_context=8),
    ),
    "model.rope_high_frequency=1.0 is not above model.rope_low_frequency=1.0": (
        ROTARY,
        dict(rope_scaling="llama3", rope_original_context=8, rope_high_frequency=1.0),
        dict(rope_scaling="llama3", rope_original_context=8, rope_high_frequency=1.1),
    ),
    "model.rope_short_factors has 3 numbers; it needs one for each of the 4 pairs": (
        ROTARY,
        LONG | dict(rope_short_factors=(1.0,) * 3),
        LONG | dict(rope_short_factors=(1.0,) * 4),
    ),
    "model.rope_theta_local=5.0 is for local layers, but model.window=0 makes": (
        ROTARY, dict(rope_theta_local=5.0), dict(rope_theta_local=5.0, window=4),
    ),
    "model.query_scale=0.5 contradicts model.parametrization='mup'": (
        CFG,
        dict(parametrization="mup", base_width=8, base_head_dim=4, query_scale=0.5),
        dict(query_scale=0.5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_nonsense_is_refused_and_its_neighbour_is_not(message):
    cfg, refused, allowed = REFUSED[message]
    with pytest.raises(ValueError, match=message):
        replace(cfg, **refused)
    assert vars(replace(cfg, **allowed)).items() >= allowed.items()


def test_tables_follow_from_the_fields():
    assert BASE_SIZES == {
        "standard": (),
        "mup": ("base_width", "base_head_dim"),
        "completep": ("base_width", "base_head_dim", "base_depth"),
    }
    assert CHOICES["rope_layout"] == ("half", "interleaved") and "window_pattern" not in CHOICES
