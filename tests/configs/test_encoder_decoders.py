"""Checks published encoder–decoders against their published parameter counts."""

import jax
import pytest

from configs import base
from configs.published import encoder_decoders
from configs.published.encoder_decoders import PUBLISHED
from launch.config import sections
from model.encoder_decoder import family

# The totals of the safetensors on huggingface.co, with tied heads counted once; of t5-11b and the
# 3b the sums of the shapes that config.json gives.
EXACT = {
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-3b": 2_851_598_336,
    "t5-11b": 11_307_321_344,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
    "t5-v1.1-large": 783_150_080,
    "t5-v1.1-xl": 2_849_757_184,
    "t5-v1.1-xxl": 11_135_332_352,
}
# Table 3 of Vaswani et al. 2017: millions of parameters of variants of the base model. The printed
# digits follow from 41,150 tokens, not from the paper's "about 37,000".
TABLE_3 = [
    (65, {}),
    (36, dict(n_layers=2)),
    (50, dict(n_layers=4)),
    (80, dict(n_layers=8)),
    (28, dict(d_model=256, head_dim=32)),
    (168, dict(d_model=1024, head_dim=128)),
    (53, dict(d_ff=1024)),
    (90, dict(d_ff=4096)),
]


def cfg(name: str, **changes):
    keys = sections.keys_of("model", "encoder_decoder")
    return family.derive(keys | PUBLISHED[name]["model"] | changes)


def total(cfg) -> int:
    return sum(family.parameters(cfg).values())


def test_every_model_has_a_published_size():
    assert {*EXACT, "vaswani-base", "vaswani-big"} == set(PUBLISHED)


@pytest.mark.parametrize("name", EXACT)
def test_exact_sizes(name):
    assert total(cfg(name)) == EXACT[name]


@pytest.mark.parametrize(
    "name",
    [
        name if name == "t5-small" else pytest.param(name, marks=pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_sizes_of_what_is_built(name):
    """By component, and without allocating anything."""
    built = dict.fromkeys(family.parameters(cfg(name)), 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(family.shapes(cfg(name))):
        built[component([part.key for part in path])] += leaf.size
    assert built == family.parameters(cfg(name))


def component(path: list[str]) -> str:
    if any(part.endswith("_norm") for part in path):
        return "norm"
    if path[0] in ("embed", "head"):
        return {"embed": "embedding"}.get(path[0], path[0])
    if path[1] == "relative":
        return "position"
    return "cross_attention" if path[2] == "cross" else f"{path[0]}_{path[2]}"


def test_vaswanis_sizes():
    """Of 37,000 tokens the base model has 63.0M parameters, printed as 65M, and the big one 214.2M,
    printed as 213M. No vocabulary gives both."""
    assert total(cfg("vaswani-base")) == 63_045_632
    assert total(cfg("vaswani-big")) == 214_171_648
    assert vocabularies("vaswani-base", 65) == (39_850, 41_750)
    assert vocabularies("vaswani-big", 213) == (35_400, 36_300)


def vocabularies(name: str, millions: int) -> tuple[int, int]:
    """The smallest and largest vocabulary, in steps of 50, that gives these printed digits."""
    sizes = {v: total(cfg(name, vocab_size=v)) for v in range(30_000, 50_000, 50)}
    fitting = [v for v, size in sizes.items() if round(size / 1e6) == millions]
    return min(fitting), max(fitting)


@pytest.mark.parametrize(("millions", "changes"), TABLE_3)
def test_table_3(millions, changes):
    assert round(total(cfg("vaswani-base", vocab_size=41_150, **changes)) / 1e6) == millions


def test_the_config_file_takes_every_published_key():
    for name, published in PUBLISHED.items():
        config = encoder_decoders.get_config(name)
        assert config.data.kind == published["kind"] and config.name == name
        for section in published.keys() - {"source", "kind"}:
            assert published[section].items() <= config[section].to_dict().items()
    peak = encoder_decoders.get_config("vaswani-base").optimizer.learning_rate
    assert peak == pytest.approx(512**-0.5 * 4000**-0.5)
    assert base.get_config().model.family == "decoder"  # nothing of theirs is left


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean t5-small"):
        encoder_decoders.get_config("t5-smal")
