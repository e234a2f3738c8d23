"""Tests that another family, objective or kind of data replaces the keys of its section."""

import dataclasses

import pytest

from configs import base
from launch.config import config_file, sections
from model.families import FAMILIES


def test_shared_keys_keep_their_values_and_the_rest_is_dropped_by_name(capsys):
    given = {"model.family": "ngram", "model.order": "3"}
    config = config_file.load_config("configs/study/ladder.py", given)
    assert config.model.to_dict() == {
        "family": "ngram", "vocab_size": 0, "context_length": 128, "order": 3,
        "smoothing": "modified_kneser_ney", "k": 1.0, "discount": 0.0,
    }  # fmt: skip
    line = capsys.readouterr().err.strip()
    assert line.startswith("model.family=ngram has no ") and line.endswith(": dropped")
    assert "gated=True" in line and "norm='rmsnorm'" in line  # values that the file sets
    assert "window" not in line  # at its default, so nothing is lost


def test_the_same_choice_changes_nothing(capsys):
    plain = config_file.load_config("configs/study/ladder.py")
    same = config_file.load_config("configs/study/ladder.py", {"model.family": "decoder"})
    assert same.to_json() == plain.to_json() and capsys.readouterr().err == ""


def test_back_again_has_the_defaults_of_what_was_dropped():
    config = config_file.load_config("configs/study/ladder.py", {"model.family": "ngram"})
    sections.swap(config, "model", "decoder")
    assert config.model.norm == base.decoder()["norm"]
    assert config.model.context_length == 128
    config.model.n_layers = 3  # locked, but its keys can be set
    with pytest.raises(AttributeError):
        config.model.order = 3


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.family", r"model\.family='x' is unknown; use one of decoder, ngram"),
        ("objective.name", r"objective\.name='x' is unknown; use one of next_token"),
        ("data.kind", r"data\.kind='x' is unknown; use one of text"),
    ],
)
def test_an_unknown_choice_lists_the_known_ones(key, message):
    with pytest.raises(ValueError, match=message):
        config_file.load_config("configs/base.py", {key: "x"})


def test_a_key_that_the_choice_lacks_is_refused():
    with pytest.raises(ValueError, match=r"unknown key config\.model\.d_model"):
        config_file.load_config("configs/base.py", {"model.family": "ngram", "model.d_model": "8"})
    heads = {"model.family": "recurrent", "model.n_heads": "2"}
    message = r"=recurrent has none, and these have: decoder, encoder.*; did you mean .*n_layers"
    with pytest.raises(ValueError, match=message):
        config_file.load_config("configs/base.py", heads)


@pytest.mark.parametrize("family", base.MODELS)
def test_the_defaults_of_base_and_of_the_family_agree(family):
    """base.py documents the defaults of the family's Config, so the two must be equal."""
    listed = base.MODELS[family]()
    fields = {field.name: field.default for field in dataclasses.fields(FAMILIES[family].Config)}
    assert list(listed) == list(fields)
    assert {k: v for k, v in listed.items() if fields[k] != v} == {}
