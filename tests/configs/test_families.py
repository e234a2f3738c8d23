"""This file checks published architectures against their published parameter counts."""

import dataclasses

import jax
import pytest

from configs import base, pretrain
from configs.families import FAMILIES
from model import count
from model.config import derive
from model.transformer import init

# Exact where the release is exact: the sizes of the published weights.
EXACT = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama2-7b": 6_738_415_616,
    "llama2-13b": 13_015_864_320,
    "llama2-70b": 68_976_648_192,
}
# Table 2.1 of Brown et al. 2020, rounded; see the next test for the 1.3B.
PRINTED = {
    "gpt3-125m": 125e6,
    "gpt3-350m": 350e6,
    "gpt3-760m": 760e6,
    "gpt3-2.7b": 2.7e9,
    "gpt3-6.7b": 6.7e9,
    "gpt3-13b": 13.0e9,
    "gpt3-175b": 175.0e9,
}


def family(name):
    return derive({**base.model(), **FAMILIES[name]["model"]})


def built(cfg) -> int:
    shapes = jax.eval_shape(lambda key: init(cfg, key), jax.random.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def total(cfg) -> int:
    return sum(count.parameters(cfg).values())


def test_every_family_has_a_published_size():
    assert set(EXACT) | set(PRINTED) | {"gpt3-1.3b"} == set(FAMILIES)


@pytest.mark.parametrize("name", EXACT)
def test_exact_sizes(name):
    assert total(family(name)) == EXACT[name]


@pytest.mark.parametrize("name", PRINTED)
def test_printed_sizes(name):
    assert total(family(name)) == pytest.approx(PRINTED[name], rel=0.02)


@pytest.mark.parametrize("name", ["gpt2", "gpt3-13b", "llama-7b", "llama2-70b"])
def test_sizes_of_what_is_built(name):
    assert built(family(name)) == total(family(name))


def test_gpt3_xl_contradicts_its_own_size_and_16_heads_do_not():
    cfg = family("gpt3-1.3b")
    assert cfg.n_heads * cfg.head_dim == 3072 != cfg.d_model
    assert total(cfg) == pytest.approx(1.52e9, rel=0.01)
    usual = dataclasses.replace(cfg, n_heads=16, n_kv_heads=16)
    assert total(usual) == pytest.approx(1.3e9, rel=0.02)


@pytest.mark.parametrize("name", FAMILIES)
def test_pretrain_takes_every_published_key(name):
    """Batches are the published tokens a step, to the rounding of the papers."""
    config = pretrain.get_config(name)
    for section in FAMILIES[name].keys() - {"source"}:
        for key, value in FAMILIES[name][section].items():
            assert config[section][key] == value
    tokens = config.train.batch_size * config.model.context_length
    assert tokens in (2**19, 2**20, 2**21, 3 * 2**20, 2**22)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean llama2-7b\? known: tiny, gpt2"):
        pretrain.get_config("llama2-7")
