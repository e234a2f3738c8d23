"""Tests that each kind of corpus yields its documents and refuses what is not text."""

import gzip
import json
import re
import sys
import types

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from data.sources import corpus, formats
from tests.data.conftest import sentence

ROWS = [{"text": sentence(i), "body": f"body {i}"} for i in range(5)]
TEXTS = [row["text"] for row in ROWS]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def test_standard_library_is_hand_written_and_without_tests():
    names = [name for name, _ in corpus.files("stdlib")]
    assert names == sorted(names) and len(names) > 400
    assert {"os.py", "json/decoder.py", "asyncio/events.py"} <= set(names)
    folders = {part for name in names for part in name.split("/")[:-1]}
    assert not folders & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
    assert "encodings/cp1252.py" not in names  # a generated table
    assert not any("_sysconfigdata" in name for name in names)  # specific to this machine
    first = next(corpus.documents("stdlib"))
    assert first == corpus.files("stdlib")[0][1].read_bytes().decode()
    assert sum(len(text) for text in corpus.documents("stdlib")) > 5e6


def test_folder_is_read_in_order_by_ending(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "z.md").write_text("third")
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    (tmp_path / "empty.txt").touch()
    (tmp_path / ".hidden").write_bytes(b"\0")
    assert list(corpus.documents(str(tmp_path))) == [*TEXTS, "second", "third"]


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        (".jsonl", JSONL),
        (".jsonl.gz", gzip.compress(JSONL, mtime=0)),
        (".jsonl.zst", zstandard.compress(JSONL)),
        (".jsonl.zst", zstandard.compress(JSONL[:99]) + zstandard.compress(JSONL[99:])),
    ],
)
def test_rows_plain_and_compressed(tmp_path, ending, content):
    path = tmp_path / f"rows{ending}"
    path.write_bytes(content)
    assert list(corpus.documents(str(path))) == TEXTS
    assert list(corpus.documents(str(path), "body")) == [row["body"] for row in ROWS]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(corpus.documents(str(path))) == TEXTS
    with pytest.raises(ValueError, match=r"'words'; keys found: body, text"):
        list(corpus.documents(str(path), "words"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"rows.parquet is damaged or not Parquet"):
        list(corpus.documents(str(path)))


@pytest.mark.parametrize("ending", [".txt", ".txt.gz", ".txt.zst"])
def test_lone_text_file_is_cut_at_paragraphs(tmp_path, ending):
    text = "".join(sentence(i) + ("\n" if i % 3 == 0 else "") for i in range(200))
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}.get(ending[4:], bytes)
    path = tmp_path / f"book{ending}"
    path.write_bytes(pack(text.encode()))
    documents = list(corpus.documents(str(path)))
    assert "".join(documents) == text and len(documents) > 4
    assert all(document.endswith("\n\n") for document in documents[:-1])
    assert all(8192 <= len(d.encode()) < 2 * 8192 for d in documents[:-1])
    # Text added at the end leaves all documents except the last unchanged.
    path.write_bytes(pack((text + sentence(0) * 50).encode()))
    assert list(corpus.documents(str(path)))[: len(documents) - 1] == documents[:-1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a\n", "\n", "漢" * 3001, "é" * 9001 + "\n", "x" * 20_000])))
def test_cut_text_is_whole_when_put_together(tmp_path_factory, parts):
    path = tmp_path_factory.mktemp("cut") / "book.txt"
    text = "".join(parts) + "end"
    path.write_bytes(text.encode())
    documents = list(corpus.documents(str(path)))
    assert "".join(documents) == text
    assert max(len(document.encode()) for document in documents) <= 3 * formats.CHUNK_BYTES


def test_text_is_kept_byte_for_byte(tmp_path):
    raw = b"\xef\xbb\xbfbom\r\nline\rtab\t e\xcc\x81\n"
    (tmp_path / "a.md").write_bytes(raw)
    assert next(corpus.documents(str(tmp_path))).encode() == raw


def test_half_a_surrogate_pair_becomes_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"text": "a\ud800b"}')
    assert next(corpus.documents(str(path))).encode().startswith(b"a\xef\xbf\xbd")


def test_max_bytes_stops_at_a_whole_document(folder_of_text):
    texts = list(corpus.documents(str(folder_of_text)))
    limit = len(texts[0].encode()) + 1
    assert list(corpus.documents(str(folder_of_text), max_bytes=limit)) == texts[:2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt' holds no text"),
        ("a.txt", b"good text\0more", "a.txt is not text: NUL byte at offset 9"),
        ("a.txt", b"good\n\n" * 3000 + b"\0", "NUL byte at offset 18000"),
        ("a.txt", b"good\n\n" * 3000 + b"\xffbad", "a.txt is not UTF-8: byte 0xff at offset 18000"),
        ("a.txt", b"cut character \xe6\xbc", "a.txt is not UTF-8: byte 0xe6 at offset 14"),
        ("a.jsonl", JSONL + b'{"t": 1}', "a.jsonl line 6 has no key data.text_key='text'.*: t$"),
        ("a.jsonl", b"[1]", "line 1 has no key .*keys found: none"),
        ("a.jsonl", b'{"text": 7}', "line 1: data.text_key='text' holds int"),
        ("a.jsonl", JSONL + b'{"text": "', "line 6 is not JSON"),
        ("a.jsonl", b'{"text": "a\xff"}', "a.jsonl is not UTF-8: byte 0xff at offset 11"),
        ("a.jsonl.gz", gzip.compress(JSONL, mtime=0)[:-20], "a.jsonl.gz is damaged or not gzip"),
        ("a.jsonl.gz", JSONL, "a.jsonl.gz is damaged or not gzip"),
        ("a.jsonl.zst", JSONL, "a.jsonl.zst is damaged or not zstandard"),
        ("a.jsonl.zst", zstandard.compress(JSONL)[:-9], "not zstandard: it ends within"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        list(corpus.documents(str(path)))
    assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_missing_and_empty_places(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        list(corpus.documents(str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="is an empty folder"):
        list(corpus.documents(str(tmp_path)))


def test_text_that_changes_while_it_is_read_is_noticed(folder_of_text):
    reading = corpus.documents(str(folder_of_text))
    next(reading)
    (folder_of_text / "new.txt").write_text("new")
    with pytest.raises(ValueError, match="changed while it was read"):
        list(reading)


def test_hugging_face(monkeypatch):
    asked = []

    def load_dataset(name, config, split, streaming):
        asked.append((name, config, split, streaming))
        if name == "nobody/nothing":
            raise ConnectionError("no such dataset\nmore lines")
        return iter(ROWS)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(corpus.documents("hf:org/name:en:test")) == TEXTS
    assert next(corpus.documents("hf:org/name", "body")) == "body 0"
    assert asked == [("org/name", "en", "test", True), ("org/name", None, "train", True)]
    for spec, message in [
        ("hf:", "not of the form"),
        ("hf:a:b:c:d", "not of the form"),
        ("hf:nobody/nothing", "'hf:nobody/nothing' cannot be loaded: no such dataset$"),
    ]:
        with pytest.raises(ValueError, match=message):
            list(corpus.documents(spec))
    with pytest.raises(ValueError, match=re.escape("keys found: body, text")):
        list(corpus.documents("hf:org/name", "content"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match="pip install datasets"):
        list(corpus.documents("hf:org/name"))
