"""Tests that the miniature families have the switches of the published ones."""

import dataclasses
import re
from pathlib import Path

import pytest

from configs import base
from configs.families import FAMILIES
from configs.published import tiny_families
from model import families
from model.transformer.config import ModelConfig, derive

DOCS = (Path(__file__).parents[2] / "docs" / "families.md").read_text()
SIZES = {"vocab_size", "context_length", "n_layers", "d_model", "n_heads", "head_dim", "d_ff"}
# Keys that change with the width or the context length.
MEASURED = {
    *("n_kv_heads", "window", "window_pattern", "rope_original_context", "rope_factor"),
    *("rope_short_factors", "rope_long_factors", "logit_scale"),
}
# Families that compute the same function: see the docstring of configs/published/tiny_families.py.
SAME = {"gpt3": "gpt2", "llama2": "llama", "llama3.2": "llama3"}


def trials() -> dict[str, ModelConfig]:
    config = tiny_families.get_config()
    models = {}
    for overrides in tiny_families.get_sweep(config):
        model = config.model.to_dict() | {"vocab_size": 257}
        changes = {k: v for k, v in overrides.items() if k.startswith("model.")}
        model |= {k.removeprefix("model."): v for k, v in changes.items()}
        assert set(model) == set(base.get_config().model)
        models[overrides["name"]] = families.derive(model)[1]
    return models


def test_every_family_has_one():
    families = {name.split("-")[0] for name in FAMILIES}
    assert {SAME.get(name, name) for name in families} == trials().keys()
    assert all(name not in SAME for name in trials())


def test_all_have_one_depth_width_and_text():
    found = set(trials().values())
    shapes = {(cfg.n_layers, cfg.d_model, cfg.context_length, cfg.vocab_size) for cfg in found}
    assert len(shapes) == 1 and len(found) == len(tiny_families.TINY)


@pytest.mark.parametrize("name", tiny_families.TINY)
def test_a_miniature_keeps_the_switches(name):
    tiny = trials()[name]
    published = derive({**base.decoder(), **FAMILIES[tiny_families.TINY[name][0]]["model"]})
    for key in {f.name for f in dataclasses.fields(ModelConfig)} - SIZES:
        there, here = getattr(published, key), getattr(tiny, key)
        if key in MEASURED:
            assert bool(there) == bool(here), key
        else:
            assert there == here, key
    assert (tiny.n_kv_heads == 1) == (published.n_kv_heads == 1)
    assert (tiny.n_kv_heads == tiny.n_heads) == (published.n_kv_heads == published.n_heads)


@pytest.mark.parametrize("name", tiny_families.TINY)
def test_what_is_there_is_at_work(name):
    """Windows are shorter than the context, RoPE scaling extends the original context, and mixed
    patterns have both kinds of layer."""
    cfg = trials()[name]
    local = {cfg.is_local(layer) for layer in range(cfg.n_layers)}
    assert cfg.window < cfg.context_length / 2
    assert local == {"LG": {True, False}, "LLLG": {True, False}}.get(
        cfg.window_pattern, {cfg.window > 0}
    )
    assert cfg.rope_original_context < cfg.context_length


@pytest.mark.parametrize("name", tiny_families.TINY)
def test_one_family_alone_is_its_trial_among_all(name):
    """Also at another width, where the keys that depend on it are computed again."""
    for width in (tiny_families.SIZES["d_model"], 64):
        alone, shared = tiny_families.get_config(name), tiny_families.get_config()
        alone.model.d_model = shared.model.d_model = width
        trials = {overrides["name"]: overrides for overrides in tiny_families.get_sweep(shared)}
        (overrides,) = tiny_families.get_sweep(alone)
        alone.update_from_flattened_dict(overrides)
        shared.update_from_flattened_dict(trials[name])
        assert alone.to_dict() == shared.to_dict()


def test_two_families_take_twice_the_sequences_in_the_same_micro_batches():
    shared = tiny_families.get_config()
    for name in tiny_families.TINY:
        sizes, times = tiny_families.get_config(name).train, 1 + (name in tiny_families.TWICE)
        assert sizes.batch_size == times * shared.train.batch_size
        assert sizes.batch_size / sizes.accumulation == 8


def test_a_family_that_is_none():
    with pytest.raises(ValueError, match="did you mean gemma2"):
        tiny_families.get_config("gema2")


def test_the_page_explains_every_key_and_every_family():
    explained = set(re.findall(r"`(\w+)`", DOCS))
    assert {f.name for f in dataclasses.fields(ModelConfig)} <= explained
    rows = set(re.findall(r"^\| ([a-z][\w.]+) \|", DOCS, re.M))
    assert {name.split("-")[0] for name in FAMILIES} <= rows
