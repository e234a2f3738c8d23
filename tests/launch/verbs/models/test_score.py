"""Tests of the verb `score`, on an untrained decoder and on counted runs."""

import json
import math
import shutil

import jax
import numpy as np
import pytest

from data import tokenizer as tokenizers
from launch.__main__ import main
from launch.evaluation.scored_model import open_model
from launch.evaluation.sentences import times, verdict
from launch.evaluation.windows import windows
from model.counted import ngram
from model.transformer import family as decoder
from tests.launch.verbs.models.test_sample import MODEL, counted_run, untrained
from train.checkpoint import write_manifest
from train.counting import MODEL as COUNTS

LATTE = ("I want a caramel iced latte.", "I want a caramelised latte.")
LONG = "to be or not to be that is the question of this long text"
CONTEXT = MODEL["context_length"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An untrained decoder with a context of 24 tokens, 3-grams of bytes and 2-grams of words."""
    home = tmp_path_factory.mktemp("runs")
    untrained(home / "decoder", MODEL)
    counted_run(home / "bytes")
    shutil.copytree(home / "bytes", home / "words")
    words = tokenizers.train("words", ["I want a latte. I want a tea."], 7)
    shutil.rmtree(home / "words" / "tokenizer")
    words.save(home / "words" / "tokenizer")
    cfg = ngram.Config(words.vocab_size, context_length=8, order=2)
    text = words.encode("I want a latte. I want a juice. I want.")
    with open(home / "words" / "checkpoints" / "1" / COUNTS, "wb") as file:
        ngram.save(ngram.fit(cfg, [text]), file)
    write_manifest(home / "words" / "checkpoints" / "1", {"step": 1})
    config = {"model": {"family": "ngram"} | vars(cfg), "data": {"tokenizer": "words"}}
    (home / "words" / "config.json").write_text(json.dumps(config))
    return home


def scored(run, tmp_path, *flags) -> list[dict]:
    assert main(["score", f"--run={run}", f"--json={tmp_path / 's.json'}", *flags]) == 0
    return json.loads((tmp_path / "s.json").read_text())["texts"]


def test_a_decoder_s_scores_are_those_of_its_logits(runs, tmp_path, capsys):
    found = scored(runs / "decoder", tmp_path, *(f"--text={text[:20]}" for text in LATTE))
    model = open_model(runs / "decoder")
    for one, text in zip(found, LATTE, strict=True):
        ids = np.array([255, *text[:20].encode()])
        x_BTD = decoder.hidden(model.cfg, model.fitted, {"tokens": ids[None, :-1]})
        head = decoder.head(model.cfg, model.fitted)
        logp_TV = jax.nn.log_softmax(decoder.logits(model.cfg, head, x_BTD)[0])
        wanted = logp_TV[np.arange(20), ids[1:]]
        assert one["logprobs"] == pytest.approx(wanted.tolist(), abs=1e-5)
        assert one["logprob"] == pytest.approx(float(wanted.sum()), abs=1e-4) == -one["nats"]
        assert one["bits"] == pytest.approx(one["nats"] / math.log(2))
        assert one["nats_per_token"] == pytest.approx(one["nats"] / 20)
        assert one["bits_per_byte"] == pytest.approx(one["bits"] / 20)
    printed = capsys.readouterr().out
    gap = found[0]["logprob"] - found[1]["logprob"]
    best, other = (1, 2) if gap > 0 else (2, 1)
    factor = f"{math.exp(abs(gap)):.3g} ({abs(gap):.4f} nats)"
    assert f"text {best} is likelier than text {other} by a factor of {factor}" in printed
    for one in found:
        for piece, logprob in zip(one["pieces"], one["logprobs"], strict=True):
            assert any(
                line.split()[:3] == [piece, f"{math.exp(logprob):.3g}", f"{logprob:.4f}"]
                for line in printed.splitlines()
            )


@pytest.mark.parametrize("stride", [CONTEXT, 10])
def test_a_long_text_is_scored_in_windows_and_named(runs, tmp_path, capsys, stride):
    texts = f"--text={LONG}", "--text=short", f"--stride={stride}"
    found = scored(runs / "decoder", tmp_path, *texts)[0]
    note = f"text 1 has {len(LONG)} tokens, above the model's context of {CONTEXT}: scored in windo"
    assert note in capsys.readouterr().err
    model, wanted = open_model(runs / "decoder"), []
    for one in windows(0, np.array([255, *LONG.encode()]), 1, CONTEXT, stride):
        rows = np.zeros((2, 1, CONTEXT), np.int32)
        rows[0, 0, : len(one.tokens)], rows[1, 0, : len(one.targets)] = one.tokens, one.targets
        wanted += model.nats(*rows)[0, one.fresh : len(one.targets)].tolist()
    assert found["logprobs"] == pytest.approx([-nats for nats in wanted], abs=1e-5)
    assert len(wanted) == len(LONG)


def test_a_counted_model_sees_the_whole_text_and_its_end(runs, tmp_path, capsys):
    (found,) = scored(runs / "bytes", tmp_path, f"--text={LONG}", "--end", "--stride=1000")
    model = open_model(runs / "bytes")
    ids = np.array([255, *LONG.encode(), 255])
    assert found["logprobs"] == (-ngram.nats(model.fitted, ids)[1:]).tolist()
    assert found["pieces"][-2:] == ["t", "<end>"]
    assert capsys.readouterr().err == ""
    (without,) = scored(runs / "bytes", tmp_path, f"--text={LONG}")
    assert without["logprobs"] == found["logprobs"][:-1]
    # The verb `evaluate` scores the same document.
    (tmp_path / "long.jsonl").write_text(json.dumps({"text": LONG}))
    flags = [f"--data={tmp_path / 'long.jsonl'}", "--ngram=0", f"--json={tmp_path / 'e.json'}"]
    assert main(["evaluate", f"--run={runs / 'bytes'}", *flags]) == 0
    evaluated = json.loads((tmp_path / "e.json").read_text())
    assert evaluated["eval_loss"] == pytest.approx(found["nats_per_token"], rel=1e-12)
    assert evaluated["bits_per_byte"] == pytest.approx(found["bits_per_byte"], rel=1e-12)


def test_unknown_words_are_counted_and_have_no_bits_per_byte(runs, tmp_path, capsys):
    file = tmp_path / "texts.txt"
    file.write_text("I want a tea.\n\n  \nI want a latte.\n")
    found = scored(runs / "words", tmp_path, f"--file={file}")
    assert [one["text"] for one in found] == ["I want a tea.", "I want a latte."]
    assert [one["pieces"][3] for one in found] == ["␣<unk>", "␣latte"]
    assert [one["unknown"] for one in found] == [1, 0]
    assert [one["bits_per_byte"] for one in found] == [None, None]
    printed = capsys.readouterr().out
    assert "unknown tokens (1) stand for anything" in printed and "log p, nats" in printed
    assert "bits/byte" not in printed and "sum, nats" not in printed  # no table of tokens
    (evaluated,) = (tmp_path / "e.json",)
    flags = [f"--data={file}", "--ngram=0", f"--json={evaluated}"]
    assert main(["evaluate", f"--run={runs / 'words'}", *flags]) == 0
    assert json.loads(evaluated.read_text())["bits_per_byte"] is None


def test_the_likeliest_is_named():
    text = lambda logprob, tokens: {  # noqa: E731
        "logprob": logprob, "nats_per_token": -logprob / tokens, "unknown": 0
    }  # fmt: skip
    assert verdict([text(-3.0, 3)]) == []
    assert verdict([text(-3.0, 3), text(-3.0, 3)]) == ["texts 1 and 2 are equally likely"]
    assert verdict([text(-5.0, 2), text(-3.0, 1), text(-9.0, 9)]) == [
        "text 2 is the likeliest, ahead of text 1 by a factor of 7.39 (2.0000 nats)",
        "per token, text 3 is the likeliest: 1.0000 against 3.0000 nats",
    ]
    assert times(0.0) == "1" and times(-math.log(8)) == "0.125"
    assert times(math.log(10) * 1000 + math.log(2)) == "2.00e+1000"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], 'text is not given; add --text="A sentence." or --file=FILE'),
        (["--text="], "text 1 ('') holds no token"),
        (["--text=a", f"--stride={CONTEXT + 1}"], f"--stride={CONTEXT + 1} is above the model's"),
        (["--file=/no/such"], "--file=/no/such does not exist"),
        (["--file=EMPTY"], "holds no text; put one text on each line"),
        (["--file=BINARY"], "is not UTF-8 (invalid start byte); convert it"),
        (["--run=/no/such", "--text=a"], "--run=/no/such holds no config.json"),
    ],
)
def test_bad_input_is_one_line(runs, tmp_path, capsys, flags, message):
    (tmp_path / "EMPTY").write_text(" \n")
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe")
    flags = [flag.replace("file=E", f"file={tmp_path}/E") for flag in flags]
    flags = [flag.replace("file=B", f"file={tmp_path}/B") for flag in flags]
    assert main(["score", f"--run={runs / 'decoder'}", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_model_without_probabilities_says_what_it_measures(runs, capsys, monkeypatch):
    monkeypatch.delattr(ngram, "nats")
    assert main(["score", f"--run={runs / 'bytes'}", "--text=a"]) == 2
    error = capsys.readouterr().err
    assert "which score no next tokens: it measures loss, bits_per_byte (isoflop show" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("verb", ["score --text=a", "evaluate", "sample"])
@pytest.mark.parametrize(
    ("sections", "remedy"),
    [
        ({"data": {"kind": "joined_pairs", "tokenizer": "bytes"}}, "isoflop translate --run="),
        ({"objective": {"name": "classify"}}, "isoflop classify --run="),
    ],
)
def test_a_decoder_that_was_trained_for_something_else_names_the_verb(
    runs, tmp_path, capsys, verb, sections, remedy
):
    shutil.copytree(runs / "decoder", tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | sections))
    assert main([*verb.split(), f"--run={tmp_path / 'other'}"]) == 2
    error = capsys.readouterr().err
    assert f"use {remedy}{tmp_path / 'other'}" in error and error.count("\n") == 1
