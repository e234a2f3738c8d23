"""Tests of what results say of their losses, so that only comparable ones are compared."""

import json

import pytest

from launch.config import combination, sections
from launch.config.config_file import load_config
from launch.trial import run as trial
from launch.trial.identity import identity
from launch.trial.resolve import predicts, resolve_sizes
from model.families import FAMILIES, read
from scaling.ranking.ranking import rank
from scaling.ranking.trials import read_sweeps
from tests.launch import toy

LSA = {
    "model.family": "lsa", "objective.name": "reconstruction", "data.kind": "documents",
    "model.context_length": toy.ABSENT, "train.chunk": toy.ABSENT, "model.d_model": "2",
    "data.tokenizer": "words",
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "objective", "kind", "key", "value"),
    [
        ("encoder", "masked", "masked_text", "data.masked", "0.3"),
        ("encoder_decoder", "next_token", "spans", "data.corruption", "0.3"),
        ("word2vec", "negative_sampling", "word_pairs", "model.negatives", "9"),
        ("word2vec", "negative_sampling", "word_pairs", "data.subsample", "0.0"),
        ("word2vec", "negative_sampling", "word_pairs", "model.window", "2"),
        ("glove", "glove", "cooccurrence", "objective.x_max", "10.0"),
        ("glove", "glove", "cooccurrence", "data.window", "3"),
    ],
)
def test_what_is_predicted_names_the_settings_that_change_it(family, objective, kind, key, value):
    def of(**given):
        chosen = {"model.family": family, "objective.name": objective, "data.kind": kind}
        config = load_config("configs/base.py", chosen | given)
        sections.complete(config)
        return predicts(config)

    assert of(**{key: value}) == f"{of()} ({key}={value})"
    assert "(" not in of() and of(seed="1") == of()


def test_flops_are_those_of_the_share_that_is_masked():
    """The masked-LM head reads the masked tokens alone."""

    def sized(masked):
        chosen = {"model.family": "encoder", "objective.name": "masked", "data.kind": "masked_text"}
        given = chosen | {"data.masked": masked, "data.tokenizer": "bytes"}
        return resolve_sizes(load_config("configs/base.py", given), devices=1)

    found = {masked: sized(masked) for masked in ("0.15", "0.4")}
    flops = {m: FAMILIES["encoder"].flops(read(c.model)[1])["chinchilla"] for m, c in found.items()}
    width, vocab = found["0.4"].model.d_model, found["0.4"].model.vocab_size
    assert flops["0.4"] - flops["0.15"] == pytest.approx(6 * 0.25 * width * (width + vocab))
    assert "model.masked" not in identity(found["0.4"])


def test_an_objective_that_no_kind_of_data_fits_names_those_that_do():
    chosen = {"model.family": "word2vec", "data.kind": "word_pairs"}
    message = "No kind fits both. Objectives that fit the family and this kind: negative_sampling"
    with pytest.raises(ValueError, match=message):
        combination.check(load_config("configs/base.py", chosen))  # with next_token
    combination.check(load_config("configs/base.py", chosen | {"objective.name": "full_softmax"}))


def test_a_counted_family_has_no_chunks(text_folder):
    """With documents of any length, the rows of a trial have no tokens to set a chunk by."""
    assert trial.run(toy.config(text_folder, **LSA), text_folder / "lsa") == 0
    result = json.loads((text_folder / "lsa" / "result.json").read_text())
    assert result["counted"] and 0 < result["eval_loss"] < 1
    fewer = toy.config(text_folder, **LSA, **{"data.max_tokens": "9000"})
    assert trial.run(fewer, text_folder / "fewer") == 0
    assert json.loads((text_folder / "fewer" / "result.json").read_text())["tokens"] == 9000
    assert result["tokens"] > 10_000


@pytest.mark.slow
def test_a_decoder_is_ranked_beside_an_encoder_decoder_on_the_same_pairs_only(
    tmp_path, compiled_once
):
    pairs = {
        "data.corpora": "synthetic_pairs:sentences=400", "data.tokenizer": "words",
        "data.too_long": "drop", "objective.name": "next_token", "model.n_layers": "1",
        "train.duration": "2 steps", "model.n_heads": "2", "data.cache": f"{tmp_path}/cache",
    }  # fmt: skip
    apart = pairs | {"data.kind": "pairs", "model.family": "encoder_decoder"}
    joined = pairs | {"data.kind": "joined_pairs", "model.family": "decoder"}
    long = {"model.source_length": "40", "model.context_length": "40"}
    sizes = {
        "apart": apart | long,
        "joined": joined | {"model.context_length": "80"},
        "short": joined | {"model.context_length": "12"},
    }
    found = {}
    for name, keys in sizes.items():
        assert trial.run(toy.config(tmp_path, **keys), tmp_path / "runs" / name) == 0
        found[name] = json.loads((tmp_path / "runs" / name / "result.json").read_text())
        if name == "joined":
            rank(*read_sweeps(tmp_path / "runs"))
    assert found["apart"]["evaluated"] == found["joined"]["evaluated"]
    assert found["apart"]["evaluated"] != found["short"]["evaluated"]
    with pytest.raises(ValueError, match="leave out or cut different validation examples"):
        rank(*read_sweeps(tmp_path / "runs"))


def test_too_few_documents_end_with_one_line(text_folder, capsys):
    many = toy.config(text_folder, **LSA | {"model.d_model": "400"}, **{"data.max_tokens": "9000"})
    assert trial.run(many, text_folder / "many") == 2
    error = capsys.readouterr().err
    assert "model.d_model=400 is not below the 5 documents" in error and error.count("\n") == 1
