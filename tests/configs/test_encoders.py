"""Checks the published encoders against their published parameter counts."""

import pytest

from configs.published import encoders
from configs.published.encoders import PUBLISHED
from launch.config import sections
from model.encoder import family

# The safetensors on huggingface.co: BertModel with its pooler, and BertForMaskedLM without.
WITH_POOLER = {"bert-base": 109_482_240, "bert-large": 335_141_888}
FOR_MASKED_LM = {"bert-base": 109_514_298, "bert-large": 335_174_458}


def cfg(name: str, **changes):
    keys = sections.keys_of("model", "encoder")
    return family.derive(keys | PUBLISHED[name]["model"] | changes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes(name):
    bare, for_masked_lm = cfg(name, masked_head=False), cfg(name, pooler=False)
    assert sum(family.parameters(bare).values()) == WITH_POOLER[name]
    assert sum(family.parameters(for_masked_lm).values()) == FOR_MASKED_LM[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_config_file_takes_every_published_key(name):
    config = encoders.get_config(name)
    sections.complete(config)
    for section in PUBLISHED[name].keys() - {"source"}:
        assert PUBLISHED[name][section].items() <= config[section].to_dict().items()
    chosen = config.model.family, config.objective.name, config.data.kind, config.name
    assert chosen == ("encoder", "masked", "masked_text", name)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean bert-base"):
        encoders.get_config("bert-bas")
