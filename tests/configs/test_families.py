"""Checks published architectures against their published parameter counts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from configs import base, pretrain
from configs.families import FAMILIES
from model.transformer import count, decoder
from model.transformer.config import derive
from model.transformer.decoder import Decoder

# The sizes of the published weights, with tied heads counted once: the total of the safetensors on
# huggingface.co, and for LLaMA the total of the shapes in params.json.
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
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3-405b": 405_853_388_800,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma2-27b": 27_227_128_320,
    "gemma3-1b": 999_885_952,
    "phi3-mini-4k": 3_821_079_552,
    "phi3-mini-128k": 3_821_079_552,
    "phi3-medium-4k": 13_960_238_080,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
}
# The larger Gemma 3 releases also contain an image encoder and its projection, of known size.
WITH_IMAGES = {
    "gemma3-4b": 4_300_079_472,
    "gemma3-12b": 12_187_325_040,
    "gemma3-27b": 27_432_406_640,
}
# Rounded sizes from table 2.1 of Brown et al. 2020 (the 1.3B has its own test) and table 1 of
# Chowdhery et al. 2022.
PRINTED = {
    "gpt3-125m": 125e6,
    "gpt3-350m": 350e6,
    "gpt3-760m": 760e6,
    "gpt3-2.7b": 2.7e9,
    "gpt3-6.7b": 6.7e9,
    "gpt3-13b": 13.0e9,
    "gpt3-175b": 175.0e9,
    "palm-8b": 8.63e9,
    "palm-62b": 62.50e9,
    "palm-540b": 540.35e9,
}


IMAGES = 416_866_032  # parameters of Gemma 3's image encoder, whose outputs are 1152 wide


def family(name):
    return derive({**base.decoder(), **FAMILIES[name]["model"]})


def every_part(decoder, tokens_BT):
    """Calls every submodule except the blocks: they need no call, and 126 layers are slow."""
    x_BTD = decoder.embed(tokens_BT)
    if decoder.cfg.positions == "learned":
        x_BTD += decoder.position(tokens_BT)
    return decoder.logits(decoder.final_norm(x_BTD))


def built(cfg, method=every_part) -> dict[str, int]:
    """Parameter counts by component of the built module, without allocating it."""
    tokens_BT = jnp.zeros((1, 1), jnp.int32)
    init = lambda key: Decoder(cfg).init(key, tokens_BT, method=method)["params"]  # noqa: E731
    sizes = dict.fromkeys(count.COMPONENTS, 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.eval_shape(init, jax.random.key(0))):
        sizes[component([part.key for part in path])] += leaf.size
    return sizes


def component(path: list[str]) -> str:
    if any(part.endswith("_norm") for part in path):
        return "norm"
    return {"embed": "embedding", "blocks": path[1]}.get(path[0], path[0])


def total(cfg) -> int:
    return sum(count.parameters(cfg).values())


def test_every_family_has_a_published_size():
    assert {*EXACT, *WITH_IMAGES, *PRINTED, "gpt3-1.3b"} == set(FAMILIES)


@pytest.mark.parametrize("name", EXACT)
def test_exact_sizes(name):
    assert total(family(name)) == EXACT[name]


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_exact_sizes_beside_images(name):
    cfg = family(name)
    projection = 1152 * cfg.d_model + 1152  # the kernel, and the norm before it
    assert total(cfg) + IMAGES + projection == WITH_IMAGES[name]


@pytest.mark.parametrize("name", PRINTED)
def test_printed_sizes(name):
    rounding = 5e-4 if name.startswith("palm") else 0.02
    assert total(family(name)) == pytest.approx(PRINTED[name], rel=rounding)


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_of_what_is_built(name):
    assert built(family(name)) == count.parameters(family(name))


def test_a_whole_forward_pass_makes_the_same_parameters():
    for name in ("gpt2", "gemma3-1b"):
        shallow = dataclasses.replace(family(name), n_layers=2)
        assert built(shallow, method=None) == built(shallow)
        assert built(shallow) != built(family(name))
        init = functools.partial(decoder.init, shallow)
        assert decoder.shapes(shallow) == jax.eval_shape(init, jax.random.key(0))


def test_longrope_has_a_divisor_for_each_pair():
    cfg = family("phi3-mini-128k")
    assert len(cfg.rope_short_factors) == len(cfg.rope_long_factors) == cfg.head_dim // 2 == 48
    for factors in (cfg.rope_short_factors, cfg.rope_long_factors):
        assert list(factors) == sorted(factors)


@pytest.mark.parametrize(
    ("name", "local"),
    [("mistral-7b", "1111111111"), ("gemma2-9b", "1010101010"), ("gemma3-4b", "1111101111"),
     ("phi3-mini-4k", "1111111111"), ("phi3-mini-128k", "0000000000"), ("qwen3-8b", "0000000000")],
)  # fmt: skip
def test_which_layers_have_windows(name, local):
    cfg = family(name)
    assert "".join(str(int(cfg.is_local(layer))) for layer in range(10)) == local


def test_gpt3_xl_contradicts_its_own_size_and_16_heads_do_not():
    cfg = family("gpt3-1.3b")
    assert cfg.n_heads * cfg.head_dim == 3072 != cfg.d_model
    assert total(cfg) == pytest.approx(1.52e9, rel=0.01)
    usual = dataclasses.replace(cfg, n_heads=16, n_kv_heads=16)
    assert total(usual) == pytest.approx(1.3e9, rel=0.02)


@pytest.mark.parametrize("name", FAMILIES)
def test_pretrain_takes_every_published_key(name):
    """Batches have the published tokens per step, as rounded in the papers."""
    config = pretrain.get_config(name)
    for section in FAMILIES[name].keys() - {"source"}:
        for key, value in FAMILIES[name][section].items():
            assert config[section][key] == value
    if "batch_size" in FAMILIES[name].get("train", ()):
        tokens = config.train.batch_size * config.model.context_length
        assert tokens in (2**19, 2**20, 2**21, 3 * 2**20, 2**22)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean llama2-7b\? known: tiny, gpt2"):
        pretrain.get_config("llama2-7")
