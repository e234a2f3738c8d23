"""Tests of the verb `tokenize`: its output, its JSON file and its errors."""

import json

import pytest

from launch.__main__ import main


@pytest.fixture
def arguments(tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("".join(f"Paragraph {i} of a short book.\n\n" for i in range(3000)))
    return [
        "tokenize",
        f"--config.data.corpora={book}",
        f"--config.data.cache={tmp_path / 'cache'}",
        "--config.data.validation=0.3",
    ]


def test_counts_are_printed_and_written(arguments, tmp_path, capsys):
    out = tmp_path / "out.json"
    assert main([*arguments, f"--json={out}"]) == 0
    about = json.loads(out.read_text())
    splits = about["corpora"][0]["splits"]
    size = (tmp_path / "book.txt").stat().st_size
    assert splits["train"]["bytes"] + splits["validation"]["bytes"] == size
    assert splits["train"]["tokens"] == splits["train"]["bytes"] + splits["train"]["documents"]
    printed = capsys.readouterr().out
    for shown in (about["hash"], about["corpora"][0]["path"], f"{splits['train']['tokens']:,}"):
        assert shown in printed


def test_unknown_words_are_counted(arguments, tmp_path, capsys):
    """The vocabulary has the 6 words of each paragraph but for its number."""
    keys = ["--config.data.tokenizer=words", "--config.data.vocab_size=8"]
    assert main([*arguments, *keys, f"--json={tmp_path / 'out.json'}"]) == 0
    splits = json.loads((tmp_path / "out.json").read_text())["corpora"][0]["splits"]
    assert sum(split["unknown"] for split in splits.values()) == 3000
    words = splits["train"]["tokens"] - splits["train"]["documents"]
    assert splits["train"]["unknown"] * 7 == words
    share = splits["train"]["unknown"] / splits["train"]["tokens"]
    printed = capsys.readouterr().out
    assert "unknown" in printed and f"{share:.2%}" in printed


def test_packing_is_printed_and_written(arguments, tmp_path, capsys):
    keys = ["--config.data.rows=packed", "--config.model.context_length=64"]
    assert main([*arguments, *keys, f"--json={tmp_path / 'out.json'}"]) == 0
    about = json.loads((tmp_path / "out.json").read_text())
    (packed,) = about["packing"]["corpora"]
    train = about["corpora"][0]["splits"]["train"]
    assert packed["documents"] == train["documents"]
    assert packed["rows"] * 64 * (1 - packed["padding"]) == pytest.approx(train["tokens"])
    printed = capsys.readouterr().out
    assert f"{packed['rows']:,} rows of 64 tokens" in printed and "by windows" in printed
    assert main(arguments) == 0 and "by windows" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.data.rows=padded", "data.rows='padded' is unknown"),
        ("--config.data.corpora=/no/such", "/no/such' does not exist"),
        ("--config.data.tokenizer=syllables", "data.tokenizer='syllables'"),
        ("--config.data.corpora=x,y", "data.weights"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, capsys, argument, message):
    assert main([*arguments, argument]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_flag_of_one_call_is_not_there_in_the_next(arguments, tmp_path):
    out = tmp_path / "out.json"
    assert main([*arguments, f"--json={out}"]) == 0
    out.unlink()
    assert main(arguments) == 0
    assert not out.exists()


def test_the_path_of_json_is_expanded_or_refused_first(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main([*arguments, "--json=~/home.json"]) == 0
    assert json.loads((tmp_path / "home.json").read_text())["corpora"]
    cache = f"--config.data.cache={tmp_path / 'never'}"
    assert main([*arguments, cache, "--json=https://host/out.json"]) == 2
    assert "remote address" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()
