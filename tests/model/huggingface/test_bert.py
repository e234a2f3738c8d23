"""Tests BERT against transformers' outputs, and its checkpoints, which go both ways."""

import json
import shutil

import jax
import numpy as np
import pytest

from model import parameters
from model.encoder import family
from model.huggingface import bert, safetensors
from tests.model.encoder_golden import CASES, FOLDER, TOLERANCE, batch_of, distance, loaded
from tests.model.golden import read_all

OUTPUTS = {
    "classifier": {"hidden", "pooled", "logits"},
    "pretraining": {"hidden", "pooled", "logits"},  # tanh GELU, names as on the hub
    "tagger": {"hidden", "logits"},
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_are_those_of_transformers(case):
    found = distance(case)
    assert found.keys() == OUTPUTS[case]
    assert max(found.values()) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("case", set(CASES) - set(OUTPUTS))
def test_outputs_of_the_other_heads_are_those_of_transformers(case):
    assert max(distance(case).values()) < TOLERANCE


FLIPS = {
    "tanh gelu": ({}, dict(activation="gelu_tanh")),
    "epsilon": ({}, dict(norm_eps=1e-6)),
    "one type": ({"token_types": 0}, {}),
    "padding seen": ({"segments": 1}, {}),
}


@pytest.mark.parametrize("flip", FLIPS)
def test_a_flipped_feature_is_seen(flip):
    fields, changes = FLIPS[flip]
    batch = batch_of("classifier")
    batch |= {name: np.full_like(batch[name], value) for name, value in fields.items()}
    assert min(distance("classifier", batch, **changes).values()) > 10 * TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_a_round_trip_changes_no_bit(case, tmp_path):
    cfg, params = loaded(case)
    bert.save(tmp_path / "saved", cfg, params, each_word=case == "tagger")
    before, after = read_all(FOLDER / case), read_all(tmp_path / "saved")
    if case == "pretraining":  # older names, and a head that is left out
        renamed = {n.replace(".gamma", ".weight").replace(".beta", ".bias"): x for n, x in before.items()}  # fmt: skip  # noqa: E501
        before = {n: x for n, x in renamed.items() if not n.startswith("cls.seq_relationship")}
    assert {n: x.tobytes() for n, x in before.items()} == {n: x.tobytes() for n, x in after.items()}
    again, same = bert.load(tmp_path / "saved")
    assert again == cfg
    jax.tree.map(np.testing.assert_array_equal, params, same)
    if case != "pretraining":
        both = (FOLDER / case, tmp_path / "saved")
        one, other = (json.loads((folder / "config.json").read_text()) for folder in both)
        assert one["architectures"] == other["architectures"]


def test_the_class_of_transformers_is_that_of_the_labels_not_of_the_pooler(tmp_path):
    """BertForTokenClassification reads no pooler, and no class classifies texts without one."""
    cfg, params = loaded("classifier")
    bert.save(tmp_path / "tagger", cfg, params, each_word=True)
    config = json.loads((tmp_path / "tagger" / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    written, before = read_all(tmp_path / "tagger"), read_all(FOLDER / "classifier")
    assert {name for name in before if name not in written} == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }
    bare, params = loaded("tagger")
    with pytest.raises(ValueError, match="has a pooler, and no class of transformers classifies"):
        bert.save(tmp_path / "classifier", bare, params, each_word=False)


def test_the_parameters_of_bert_base_and_large_are_the_published_ones():
    base = dict(vocab_size=30_522, context_length=512, pooler=True, masked_head=False)
    for sizes, total in (((12, 768, 12), 109_482_240), ((24, 1024, 16), 335_141_888)):
        keys = dict(zip(("n_layers", "d_model", "n_heads"), sizes, strict=True))
        cfg = family.Config(**base, **keys, d_ff=4 * keys["d_model"])
        assert sum(family.parameters(cfg).values()) == total


FAULTS = {
    "hidden_act": ("swiglu", "hidden_act='swiglu'"),
    "is_decoder": (True, "is_decoder=True is not supported"),
    "position_embedding_type": ("relative_key", "only 'absolute' is"),
    "hidden_size": ("24", "hidden_size='24' is missing or has the wrong type"),
    "num_attention_heads": (5, "model.n_heads=5 does not divide"),
    "mixture_of_experts": (3, "the key mixture_of_experts is unknown"),
    "intermediate_size": (44, "it must be [24, 44]"),
}


@pytest.mark.parametrize("key", FAULTS)
def test_what_is_not_supported_is_named(key, tmp_path):
    value, message = FAULTS[key]
    folder = shutil.copytree(FOLDER / "masked", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError) as error:
        bert.load(folder)
    assert message in str(error.value)


def test_a_missing_and_an_unknown_tensor_are_named(tmp_path):
    for rename, message in (("cls.unknown", "lacks tensor"), (None, "does not belong")):
        folder = shutil.copytree(FOLDER / "masked", tmp_path / str(rename))
        tensors = read_all(folder)
        name = "bert.encoder.layer.1.output.dense.bias"
        if rename:
            tensors[rename] = tensors.pop(name)
        else:
            tensors["bert.more"] = tensors[name]
        layout = {n: (x.dtype, x.shape) for n, x in tensors.items()}
        safetensors.write(folder / "model.safetensors", layout, lambda n, t=tensors: [t[n]])
        with pytest.raises(ValueError, match=message):
            bert.load(folder)


def test_parameters_are_counted():
    cfg, params = loaded("classifier")
    total = sum(leaf.size for leaf in parameters.flat(params).values())
    assert sum(family.parameters(cfg).values()) == total
