"""Tests how texts are cut into passages, and that each knows its place in its source."""

import hashlib
import json

import pytest

from data.retrieval import passages
from data.retrieval.passages import Document, cut

TEXT = "one two\n  three four\n\nfive " + "x" * 450 + "\nsix seven"


def cut_text(text=TEXT, words=2, lines=0, overlap=0, begin=0, line=1):
    return list(cut(Document("a.txt", begin, line, text, b"\0" * 32), words, lines, overlap))


@pytest.mark.parametrize(
    ("words", "lines", "overlap"), [(2, 0, 0), (3, 0, 2), (9, 2, 0), (9, 3, 1)]
)
def test_passages_are_parts_of_the_text(words, lines, overlap):
    found = cut_text(words=words, lines=lines, overlap=overlap)
    for one in found:
        assert TEXT[one.begin :].startswith(one.text)
        assert one.line == 1 + TEXT[: one.begin].count("\n")
    joined = " ".join(one.text for one in found)
    assert set(TEXT.split()) - {"x" * 450} <= set(joined.split())
    assert not cut_text(" \n ")


def test_sizes_and_overlap_are_counted_in_words_or_lines():
    assert [one.text for one in cut_text("a b c d e", 2)] == ["a b", "c d", "e"]
    assert [one.text for one in cut_text("a b c d e", 3, overlap=1)] == ["a b c", "c d e"]
    assert [one.text for one in cut_text("a\nb\nc\n", lines=2)] == ["a\nb", "c"]
    separated = "a\u2028b\x0cc\rd\n\ne"  # only \n ends a line
    assert [one.text for one in cut_text(separated, lines=1)] == ["a\u2028b\x0cc\rd", "e"]
    assert [len(one.text) for one in cut_text("x" * 450, 1)] == [200, 200, 50]
    assert cut_text("\nb", begin=7, line=3)[0][1:3] == (8, 4)


def test_documents_know_their_file_and_row(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.py").write_text("x = 1\n")
    rows = [{"text": "first"}, {"text": "second"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(passages.documents(str(tmp_path)))
    assert [(one.source, one.text) for one in found] == [
        ("a.jsonl#0", "first"), ("a.jsonl#1", "second"), ("b/c.py", "x = 1\n"),
    ]  # fmt: skip
    assert found[2].digest == hashlib.sha256(b"x = 1\n").digest()
    # A file alone is split at paragraphs; its parts know where they begin.
    text = "".join(f"Paragraph {i}.\n\n" for i in range(3000))
    (tmp_path / "book.txt").write_text(text)
    found = list(passages.documents(str(tmp_path / "book.txt")))
    assert len(found) > 2 and "".join(one.text for one in found) == text
    for one in found:
        assert text[one.begin :].startswith(one.text[:50])
        assert one.line == 1 + text[: one.begin].count("\n")
    (tmp_path / "b" / "c.py").write_text("")
    with pytest.raises(ValueError, match="holds no text"):
        list(passages.documents(str(tmp_path / "b")))


def test_texts_that_change_while_they_are_read_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("some text")
    with pytest.raises(ValueError, match=r"texts=.* changed while it was read"):
        for _ in passages.documents(str(tmp_path)):
            (tmp_path / "b").write_text("another text")


def test_passages_are_read_where_they_are(tmp_path):
    made = cut_text("ä b c d")
    assert passages.write(tmp_path, iter(made)) == 2
    found = passages.Passages(tmp_path)
    assert list(found) == made and found[1].text == "c d"
    with pytest.raises(IndexError):
        found[2]
