"""Tests isoflop translate on tiny models, end to end."""

import json
import re
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from data.kinds import pairs
from launch.__main__ import main
from launch.translation import held_out, scores
from model import families

SMALL = [
    "--config=configs/base.py",
    *("--config.data.corpora=pairs.tsv", "--config.data.tokenizer=chars"),
    *("--config.data.validation=0.2", "--config.model.d_model=16", "--config.train.batch_size=16"),
    *(
        "--config.eval.sequences=64",
        "--config.eval.batch_size=8",
        "--config.train.duration=20 steps",
    ),
    *("--config.optimizer.learning_rate=0.02", "--config.log.tensorboard=False"),
]
ENCODER_DECODER = [
    *SMALL,
    *("--config.model.family=recurrent_encoder_decoder", "--config.data.kind=pairs"),
    *("--config.model.source_length=8", "--config.model.context_length=8"),
    *("--config.objective.name=exact_match", "--config.model.unroll=1"),
]
TWICE = ["--run=mt", "--file=sources", "--references=right", "--by_length=a.svg"]
DECODER = [
    *SMALL,
    *("--config.data.kind=joined_pairs", "--config.model.context_length=16"),
    *("--config.model.n_layers=1", "--config.model.n_heads=2"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, compiled_once):
    """The run `mt`, which copies three letters, and a file of sources."""
    folder = tmp_path_factory.mktemp("translate")
    letters = [f"{a}{b}{c}" for a in "abcd" for b in "abcd" for c in "abcd"]
    (folder / "pairs.tsv").write_text("".join(f"{x}\t{x}\n" for x in letters))
    (folder / "sources").write_text("abc\ndda\nb\n")
    (folder / "right").write_text("abc\ndda\nb\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *ENCODER_DECODER, "--workdir=mt"]) == 0
    return folder


@pytest.fixture(scope="module")
def joined(folder):
    """The run `joined` of a decoder on the same pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *DECODER, "--workdir=joined"]) == 0


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def written(argv, capsys) -> tuple[list[str], dict]:
    capsys.readouterr()
    assert main(["translate", *argv, "--json=out.json"]) == 0
    return capsys.readouterr().out.splitlines(), json.load(open("out.json"))


@pytest.mark.slow
def test_metrics_of_whole_sentences_are_in_the_result(here):
    metrics = json.loads((here / "mt" / "result.json").read_text())["metrics"]
    assert {"loss", "accuracy", "exact_match", "exact_match_1_8", "bits_per_byte"} <= set(metrics)
    assert "exact_match_9_16" not in metrics  # no sentence is that long


@pytest.mark.slow
def test_greedy_matches_as_often_as_the_evaluation_says(here, capsys):
    """The metric exact_match reads the right sentence; greedy decoding reads what it wrote."""
    from launch.translation.held_out import held_out
    from launch.translation.translator import open_run

    sources, targets = held_out(here / "mt")
    (here / "validation").write_text("\n".join(sources))
    lines, _ = written(["--run=mt", "--file=validation", "--beams=1"], capsys)
    right = sum(line == target for line, target in zip(lines, targets, strict=True))
    result = json.loads((here / "mt" / "result.json").read_text())
    expected = result["metrics"]["exact_match"]["value"]
    assert right / len(lines) == pytest.approx(expected) and 0.1 < expected < 0.9
    assert open_run(here / "mt").room == 7


@pytest.mark.slow
@pytest.mark.parametrize("run", ["mt", "joined"])
def test_beams_draws_and_files(here, capsys, run, request):
    if run == "joined":
        request.getfixturevalue("joined")
    lines, about = written([f"--run={run}", "--file=sources", "--beams=2"], capsys)
    assert lines == [one["text"] for one in about["translations"]] and len(lines) == 3
    for one in about["translations"]:
        scores = [beam["score"] for beam in one["beams"]]
        assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    single, _ = written([f"--run={run}", "--text=dda", "--beams=2"], capsys)
    assert single == lines[1:2]  # a sentence's translation does not depend on its neighbours
    if run == "joined":  # nor does its limit, which is what its own source leaves of the context
        (here / "lengths").write_text("abcdabcdabcd\n" + "a\n" * 20)
        drawn, _ = written(["--run=joined", "--file=lengths", "--temperature=100"], capsys)
        assert len(drawn[0]) <= 3 < max(map(len, drawn))
    first = written([f"--run={run}", "--text=abc", "--temperature=1", "--seed=3"], capsys)
    assert first == written([f"--run={run}", "--text=abc", "--temperature=1", "--seed=3"], capsys)


def test_scores_are_those_of_sacrebleu():
    pytest.importorskip("sacrebleu", reason="this machine has no sacrebleu")
    right = ["the cat sat on the mat", "a dog ran"]
    found = scores.scores(right, right)
    assert found["bleu"]["score"] == pytest.approx(100) and found["exact_match"] == 1
    found = scores.scores(["the cat sat on a mat", "a dog ran"], right)
    # By hand: precisions 8/9, 5/7, 3/5, 1/3; no brevity penalty.
    assert found["bleu"]["score"] == pytest.approx(100 * (8 / 9 * 5 / 7 * 3 / 5 * 1 / 3) ** 0.25)
    assert found["exact_match"] == 0.5 and "nrefs:1" in found["bleu"]["signature"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--run=mt"], "give one of --text='a sentence', --file=FILE and --validation"),
        (["--run=mt", "--validation", "--text=a"], "give one of --text='a sentence', --file=FILE"),
        (["--run=mt", "--text="], "text 1 of 1 is empty; give it words"),
        (["--run=mt", "--text=abcdabcdab"], "1 of 1 texts have more than the 7 tokens"),
        (["--run=mt", "--text=a", "--seed=1"], "--seed means nothing without --temperature"),
        (["--run=mt", "--text=a", "--beams=2", "--temperature=1"], "--beams means nothing with"),
        (["--run=mt", "--text=a", "--tokens=9"], "--tokens=9 is out of range"),
        (["--run=mt", "--text=a", "--by_length=a.svg"], "--by_length needs right translations"),
        (["--run=mt", "--validation", "--by_length=a.gif"], "must end with .html, .svg, .png"),
        (["--run=mt", "--validation", "--against=mt"], "--against is for the plot of --by_length"),
        ([*TWICE, "--against=mt"], "two runs are named 'mt'"),
        (["--run=mt", "--file=none"], "--file=none does not exist"),
        (["--run=none", "--text=a"], "--run=none holds no config.json"),
        (["--run=lm", "--text=a"], "'ngram' that predicts the next token of text; this verb"),
    ],
)
def test_bad_input_is_one_line(here, capsys, argv, message):
    config = json.loads((here / "mt" / "config.json").read_text())
    config["data"]["kind"] = "text"
    config["model"] = {"family": "ngram", "vocab_size": 9, "context_length": 8, "order": 2}
    (here / "lm").mkdir(exist_ok=True)
    (here / "lm" / "config.json").write_text(json.dumps(config))
    assert main(["translate", *argv]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


def test_references_need_a_line_for_each_sentence(here, capsys, monkeypatch):
    monkeypatch.setattr(scores, "require", lambda: None)
    (here / "short").write_text("abc\ndda\n")
    assert main(["translate", "--run=mt", "--file=sources", "--references=short"]) == 2
    assert "2 lines for 3 sentences: line 3 has no counterpart" in capsys.readouterr().err


def test_long_sentences_are_cut_where_asked(here, capsys):
    long, _ = written(["--run=mt", "--text=abcdabcdab", "--truncate", "--beams=1"], capsys)
    cut, _ = written(["--run=mt", "--text=abcdabc", "--beams=1"], capsys)
    assert long == cut


def test_exact_match_by_length_is_counted_and_drawn(here, capsys, monkeypatch):
    pytest.importorskip("vl_convert", reason="this machine draws no plots")
    monkeypatch.setattr(scores, "require", lambda: pytest.fail("BLEU is not asked for"))
    sources = ["abc", "dda", "bca", "a b", "b a"]
    (here / "five").write_text("\n".join(sources))
    shutil.copytree(here / "mt", here / "other", dirs_exist_ok=True)
    found, _ = written(["--run=mt", "--file=five", "--beams=1"], capsys)
    (here / "answers").write_text("\n".join([*found[:2], "wrong", *found[3:]]))
    given = ["--file=five", "--references=answers", "--beams=1", "--by_length=lengths.html"]
    lines, about = written(["--run=mt", *given, "--against=other"], capsys)
    assert [one["text"] for one in about["translations"]] == found
    assert list(about["by_length"]) == ["mt", "other"]
    for bins in about["by_length"].values():
        (counted,) = bins  # too few sentences for two
        assert (counted["last"], counted["sentences"], counted["exact"]) == (2, 5, 4)
    assert lines[0] == "mt: exact match 80.0% of 5 sentences" and len(lines) == 4
    specs = re.search(r'id="specs">(.*?)</script>', (here / "lengths.html").read_text(), re.DOTALL)
    assert "Words of the source" in specs[1]


def test_runs_on_other_pairs_are_not_drawn_together(here, capsys, monkeypatch):
    monkeypatch.setattr(held_out, "held_out", lambda run: ([run.name], [run.name]))
    shutil.copytree(here / "mt", here / "c", dirs_exist_ok=True)
    argv = ["--run=mt", "--against=c", "--validation", "--by_length=a.svg"]
    assert main(["translate", *argv]) == 2
    assert "--against=c holds out other pairs than --run=mt" in capsys.readouterr().err


@pytest.mark.parametrize("tokenizer", ["words", "lowercase_words", "chars"])
def test_what_the_tokenizer_does_not_know_is_no_match(tmp_path, tokenizer):
    """Its own spelling of an unknown word would be that of an unknown word of the translation."""
    rows = [(f"Eins {letter}'s, zwei", f"One {letter}'s, two") for letter in "абвгдежзик"]
    (tmp_path / "p.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in rows))
    data = families.keys(pairs) | {
        "kind": "pairs", "corpora": (f"{tmp_path}/p.tsv",), "cache": f"{tmp_path}/cache",
        "tokenizer": tokenizer, "validation": 0.3,
    }  # fmt: skip
    store = pairs.prepare(ConfigDict(data), progress=False).store
    data["hash"] = store.hash
    (tmp_path / "config.json").write_text(json.dumps({"data": data}))
    sources, targets = held_out.held_out(tmp_path)
    assert len(targets) == store.splits["validation"].n_documents > 1
    written = [
        [text.replace(",", " ,") if "words" in tokenizer else text for text in row] for row in rows
    ]
    if tokenizer == "lowercase_words":
        written = [[text.lower() for text in row] for row in written]
    assert set(zip(sources, targets, strict=True)) <= set(map(tuple, written))
    kept = store.pairs["validation"]
    for number, (begin, length) in enumerate(
        zip(kept.begins_P2[:, 0], kept.lengths_P2[:, 0], strict=True)
    ):
        tokens = kept.take(np.arange(begin, begin + length))
        assert store.tokenizer.unknown in tokens
        assert tokens.tolist() == store.tokenizer.encode(sources[number]).tolist()
