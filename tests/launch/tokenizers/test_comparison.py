"""Tests of `isoflop tokenize --compare`: its counts, its page and its errors."""

import json

import pytest

from data import tokenizer as tokenizers
from data.compared import declaration
from data.compared.measures import difference, measure, pieces, spaced
from launch.__main__ import main
from launch.tokenizers.comparison import SENTENCES
from tests.model import golden

ASCII = golden.FOLDER / "hf" / "llama_gqa" / "tokenizer.json"
BYTES = tokenizers.from_spec("bytes")


def test_a_text_is_counted_in_bytes_tokens_and_words():
    text = "süße Köche, süße Torten"
    counts = measure(BYTES, text)
    assert (counts["bytes"], counts["characters"], counts["words"]) == (28, 23, 4)
    assert counts["tokens"] == 28 and counts["bytes_per_token"] == 1
    assert counts["fertility"] == 7 and counts["round_trip"] == ""
    words = tokenizers.train("words", ["süße Köche"])
    counts = measure(words, text)
    assert counts["unknown"] == 2 and counts["tokens"] == 5 and counts["round_trip"]
    assert counts["bytes_per_token"] == 28 / 5 and counts["fertility"] == 5 / 4


def test_scripts_without_spaces_have_no_words():
    unspaced = {name for name, text in declaration.TEXTS.items() if not spaced(text)}
    assert unspaced == {"Chinese", "Japanese"}
    assert measure(BYTES, declaration.TEXTS["Japanese"])["fertility"] is None


def test_the_first_difference_of_what_came_back_is_named():
    assert difference("abc", "abc") == ""
    assert difference("abcdef", "abXdef") == "character 2: 'abcdef' became 'abXdef'"
    assert difference("abc", "Xbc") == "character 0: 'abc' became 'Xbc'"
    assert difference("abc", "ab") == "character 2: 'abc' became 'ab'"


def test_pieces_show_how_umlauts_and_ascii_are_cut():
    cut = pieces(BYTES, "süß")
    assert cut == ["s", "<C3>", "<BC>", "<C3>", "<9F>"]
    bpe = tokenizers.train("bpe", [" ".join(SENTENCES)] * 40, 330)
    with_umlauts, ascii_only = (pieces(bpe, sentence) for sentence in SENTENCES)
    assert "".join(with_umlauts) == SENTENCES[0] and "".join(ascii_only) == SENTENCES[1]
    assert len(with_umlauts) < len(pieces(BYTES, SENTENCES[0]))


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """What the verb wrote: its JSON, the page, and its text."""
    folder = tmp_path_factory.mktemp("compared")
    book = folder / "book.txt"
    book.write_text("".join(f"Paragraph {i} of a short book.\n\n" for i in range(3000)))
    argv = [
        f"--compare=bytes,bpe:300,<i>=words:8,ascii={ASCII}", f"--texts=<b>Book</b>={book}",
        "--sentence=A [bold]short[/] <u>book", f"--config.data.corpora={book}",
        f"--config.data.cache={folder / 'cache'}", f"--json={folder / 'c.json'}",
        f"--out={folder / 'page'}",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for module in ("tokenizers.tokenizer_page", "frame"):  # no figures, which take seconds
            patch.setattr(f"scaling.report.{module}.missing_package", lambda: "altair")
        assert main(["tokenize", *argv]) == 0
    about = json.loads((folder / "c.json").read_text())
    return about, (folder / "page" / "index.html").read_text(), folder


def test_every_tokenizer_reads_every_text(compared):
    about, _, folder = compared
    found = {one["name"]: one for one in about["tokenizers"]}
    assert list(found) == ["bytes", "bpe:300", "<i>", "ascii"]
    size = (folder / "book.txt").stat().st_size
    text = "<b>Book</b>"
    assert found["bytes"]["texts"][text]["bytes"] >= size - 2
    assert found["bpe:300"]["vocab_size"] == 300
    assert found["bpe:300"]["bytes_per_token"] > 1.5 > found["bytes"]["bytes_per_token"] == 1
    assert found["<i>"]["unknown"] > 0.1 and found["<i>"]["came_back"] == 0
    assert found["bytes"]["came_back"] == found["bpe:300"]["came_back"] == 1
    assert found["bytes"]["sentences"][0][:3] == ["A", " ", "["]
    assert about["parallel"] is None and "premium" not in found["bytes"]["texts"][text]
    assert json.loads((folder / "page" / "tokenizers.json").read_text()) == about


def test_the_page_shows_names_texts_and_pieces_as_text(compared):
    _, page, _ = compared
    for raw in ("<b>Book", "<i>", "<u>book"):
        assert raw not in page.partition("<main")[2].partition("</main>")[0]
    for shown in ("&lt;b&gt;Book", "&lt;i&gt;", "bpe:300", "does not come back"):
        assert shown in page


def test_the_declaration_is_read_without_texts(tmp_path, capsys):
    assert main(["tokenize", "--compare=bytes", f"--json={tmp_path / 'c.json'}"]) == 0
    about = json.loads((tmp_path / "c.json").read_text())
    texts = about["tokenizers"][0]["texts"]
    assert texts.keys() == declaration.TEXTS.keys() and texts["English"]["premium"] == 1
    assert texts["Greek"]["premium"] == texts["Greek"]["bytes"] / texts["English"]["bytes"] > 2
    printed = capsys.readouterr().out
    assert "Greek" in printed and "s|<C3>|<BC>|<C3>|<9F>|e" in printed
    # A pipe gets each sentence in one line, however long.
    cut = [line for line in printed.splitlines() if line.startswith("  bytes: ")]
    assert len(cut) == len(SENTENCES) and all(line.endswith("|n|.") for line in cut)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--compare=bytes,bytes"], "has a name twice; write NAME=TOKENIZER"),
        (["--compare=bpe:many"], "'many' is no vocabulary size; use bpe:4096"),
        (["--compare=bpe"], "needs a data.vocab_size above 0"),
        (["--compare=syllables"], "'syllables' is unknown"),
        (["--compare=bytes", "--texts=book.txt"], "texts=book.txt has no name; write NAME=CORPUS"),
        (["--compare=bytes", "--texts=German=/no/such"], "texts=German=/no/such: "),
        (["--out=page"], "go with --compare"),
    ],
)
def test_bad_input_is_one_line(argv, message, tmp_path, monkeypatch, capsys):
    book = tmp_path / "book.txt"
    book.write_text("".join(f"Paragraph {i}.\n\n" for i in range(3000)))
    keys = [f"--config.data.corpora={book}", f"--config.data.cache={tmp_path / 'cache'}"]
    assert main(["tokenize", *argv, *keys]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
