"""Tests that files of every usual format are recognised and read in bounded memory."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import tracemalloc

import pytest
import zstandard

from data.sources import corpus, formats
from tests.data.conftest import sentence

ROWS = [
    {"text": 'first, "quoted"\nline', "n": "1"},
    {"text": "漢字 é", "n": ""},
    {"text": sentence(2), "n": "x"},
]
TEXTS = [row["text"] for row in ROWS]
PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".GZ": gzip.compress,
    ".gzip": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
    ".zst": zstandard.compress,
    ".zstd": zstandard.compress,
}


def jsonl(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def separated(delimiter: str) -> bytes:
    quoted = [
        [f'"{value.replace(chr(34), 2 * chr(34))}"' for value in row.values()] for row in ROWS
    ]
    return "".join(delimiter.join(row) + "\n" for row in [["text", "n"], *quoted]).encode()


def parquet(rows: list[dict]) -> bytes:
    pyarrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    table.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


CONTENTS = {
    ".jsonl": lambda: jsonl(ROWS),
    ".JSONL": lambda: jsonl(ROWS),
    ".jsonlines": lambda: jsonl(ROWS),
    ".ndjson": lambda: jsonl(ROWS),
    ".json": lambda: json.dumps(ROWS).encode(),
    ".csv": lambda: separated(","),
    ".tsv": lambda: separated("\t"),
    ".parquet": lambda: parquet(ROWS),
    ".pq": lambda: parquet(ROWS),
}


@pytest.mark.parametrize(("ending", "packed"), list(itertools.product(CONTENTS, PACK)))
def test_rows_are_rows_under_every_ending(tmp_path, ending, packed):
    path = tmp_path / f"rows{ending}{packed}"
    path.write_bytes(PACK[packed](CONTENTS[ending]()))
    assert list(corpus.documents(str(path))) == TEXTS
    assert list(corpus.documents(str(tmp_path))) == TEXTS  # and in a folder
    assert list(corpus.documents(str(path), "n")) == ["1", "x"]


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        "\n  " + json.dumps(ROWS) + "\n\n",
        "\n".join(json.dumps(row) for row in ROWS),
        "".join(json.dumps(row) for row in ROWS),
        "\n\n".join(json.dumps(row, indent=1) for row in ROWS),
        "\ufeff" + json.dumps(ROWS),
    ],
)
@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_a_json_is_an_array_or_objects(tmp_path, monkeypatch, content, at_once):
    monkeypatch.setattr(formats, "READ_BYTES", at_once)
    path = tmp_path / "rows.json"
    path.write_text(content)
    assert list(corpus.documents(str(path))) == TEXTS


def test_a_json_of_one_object_is_one_document(tmp_path):
    path = tmp_path / "row.json"
    path.write_text(json.dumps(ROWS[0], indent=4))
    assert list(corpus.documents(str(path))) == TEXTS[:1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"name": "x", "version": 1}', "row 1 has no key data.text_key='text'.*: name"),
        ("a.json", b"[[1], [2]]", "row 1 has no key"),
        ("a.json", b'[{"text": "a"} {"text": "b"}]', "row 2 is not JSON: ','"),
        ("a.json", b'[{"text": "a"}', "row 2 is not JSON: ','"),
        ("a.json", b'[{"text": "a"}] x', "row 2 is not JSON"),
        ("a.json", b'[{"text": "a"},', "row 2 is not JSON: Expecting value"),
        ("a.json", b'{"text": "a"', "row 1 is not JSON"),
        ("a.json", b'{"text": ["a", "b"]}', "holds list, not a string"),
        ("a.json", b'"a"', "neither an array nor an object"),
        ("a.json", b"Dear reader", "neither an array nor an object"),
        ("a.json", b'[{"text": "a\xff"}]', "is not UTF-8 at offset 12"),
        ("a.json", b'[{"text": "a\0"}]', "NUL byte at offset 12"),
        ("a.json", b"[" * 100_000, "row 1 is not JSON: it is nested too deeply"),
        ("a.json", b'{"text":' * 100_000, "row 1 is not JSON: it is nested too deeply"),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON: it is nested too deeply"),
        ("a.json", b"[]", "holds no text"),
        ("a.csv", b"words,n\na,1\n", "no key data.text_key='text'; keys found: n, words"),
        ("a.csv", b"text,n\na,1\n\nb\n", "a.csv line 4 has 1 fields, but the first line has 2"),
        ("a.csv", b'text\n"a\n', "a.csv line 2 cannot be read: unexpected end of data"),
        ("a.csv.bz2", b"text\na\n", "a.csv.bz2 is damaged or not bzip2"),
        ("a.jsonl.xz", jsonl(ROWS), "a.jsonl.xz is damaged or not xz"),
        ("a.jsonl.xz", lzma.compress(jsonl(ROWS))[:-20], "a.jsonl.xz is damaged or not xz"),
        ("a.jsonl.bz2", bz2.compress(jsonl(ROWS))[:-5], "a.jsonl.bz2 is damaged or not bzip2"),
        ("a.parquet.gz", gzip.compress(b"PAR1 no"), "a.parquet.gz is damaged or not Parquet"),
        ("a.parquet.gz", b"PAR1 no", "a.parquet.gz is damaged or not gzip"),
        ("dump", jsonl(ROWS), "dump looks like rows of JSON; name it .jsonl"),
        ("dump.dat", json.dumps(ROWS, indent=1).encode(), "looks like rows of JSON"),
        ("dump.gz", gzip.compress(jsonl(ROWS)), "looks like rows of JSON"),
        ("dump.log.zst", zstandard.compress(b"\xef\xbb\xbf" + jsonl(ROWS)), "looks like rows"),
        ("dump.geojson", b'{ "type": "Feature"}', "looks like rows of JSON"),
        ("dump.rows", b'[["a", "b"], ["c", "d"]]', "looks like rows of JSON"),
        ("dump.rows", b'["a", "b"]\n["c", "d"]\n', "looks like rows of JSON"),
        ("dump.rows", b'[\n [1, null, -2.5e3, "a"]]', "looks like rows of JSON"),
        ("a.dat", gzip.compress(b"text"), "a.dat is not text: it holds gzip"),
        ("a.tgz", gzip.compress(b"text"), "holds gzip"),
        ("a.txt.gz", gzip.compress(gzip.compress(b"text")), "holds gzip"),
        ("a.bin", b"PAR1 ascii PAR1", "holds Parquet"),
        ("a.feather", b"ARROW1 ascii", "holds Arrow"),
        ("a.zip", b"PK\x03\x04 ascii", "holds a zip archive"),
        ("a.pdf", b"%PDF-1.4\nascii", "holds PDF"),
        ("a.bin", b"bytes \x80\x81", "is not UTF-8: byte 0x80 at offset 6"),
    ],
    ids=lambda value: "content" if isinstance(value, bytes) else None,  # gzip stores the time
)
def test_what_is_not_what_its_ending_says_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    for spec in (path, tmp_path):
        if spec == tmp_path and "holds no text" in message:
            continue
        with pytest.raises(ValueError, match=message) as raised:
            list(corpus.documents(str(spec)))
        assert str(tmp_path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", '{"text": "rows in a file that is named text"}'),
        ("a.md", '[{"text": 1}]'),
        ("README", "Braces {later} are fine."),
        ("a.c", "{ int a; }"),
        ("a.log", "[info] started\n"),
        ("a.js", "[1, 2].map(f)"),
        ("a.xyz", "plain"),
        ("a.xyz", '[1] A. Smith, "On rows", 1999.'),
        ("a.wiki", '[[Page]] "quoted", [12, 13] too'),
    ],
)
def test_text_is_text_under_any_ending(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert list(corpus.documents(str(tmp_path / name))) == [text]
    assert list(corpus.documents(str(tmp_path))) == [text]


def test_files_that_are_read_differently_have_another_identity(tmp_path):
    """So that tokens that an older version made from braces and keys are not reused."""
    for name in ("a.json", "a.jsonl", "a.ndjson", "a.txt", "a.txt.gz", "a.dat", "a.csv"):
        (tmp_path / name).write_bytes(b"x")
    marked = [name for name, *about in corpus.identity(str(tmp_path)) if len(about) > 2]
    assert marked == ["a.csv", "a.dat", "a.json", "a.ndjson", "a.txt.gz"]
    assert [len(corpus.identity(str(tmp_path / n))[0]) for n in ("a.txt", "a.txt.gz")] == [3, 3]
    assert {len(about) for about in corpus.identity("stdlib")} == {3}


MIB = 1 << 20
REPEATABLE = {  # parts can be concatenated, which makes a bomb quickly
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(level=19).compress,
    ".zst of one frame": None,
}


def bomb(folder, name: str, packed: str, opening: bytes = b"", size: int = 256 * MIB):
    """A small file that expands to `opening` and `size` equal letters."""
    path = folder / f"{name}{packed.split()[0]}"
    if REPEATABLE[packed]:
        part = REPEATABLE[packed](b"a" * (16 * MIB))
        path.write_bytes(REPEATABLE[packed](opening) + part * (size // (16 * MIB)))
    else:
        path.write_bytes(zstandard.compress(opening + b"a" * size))
    assert path.stat().st_size < size / 500
    return path


def peak_of(action) -> int:
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_documents(monkeypatch):
    monkeypatch.setattr(formats, "LARGEST_DOCUMENT", 4 * MIB)


@pytest.mark.parametrize("packed", REPEATABLE)
@pytest.mark.parametrize(
    ("name", "opening"),
    [("a.jsonl", b'{"text": "'), ("a.json", b'[{"text": "'), ("a.csv", b'text\n"')],
)
def test_a_giant_row_is_refused_in_little_memory(tmp_path, small_documents, packed, name, opening):
    path = bomb(tmp_path, name, packed, opening)

    def read():
        with pytest.raises(ValueError, match=r"(is longer than 4 MiB|field larger than)"):
            list(corpus.documents(str(path), max_bytes=1000))

    assert peak_of(read) < 60 * MIB


@pytest.mark.parametrize("packed", REPEATABLE)
@pytest.mark.parametrize("in_folder", [False, True])
def test_a_giant_text_is_cut_and_max_bytes_ends_it(tmp_path, small_documents, packed, in_folder):
    path = bomb(tmp_path, "a.txt", packed)
    read = []

    def documents():
        spec = tmp_path if in_folder else path
        read.extend(corpus.documents(str(spec), max_bytes=100_000))

    assert peak_of(documents) < 60 * MIB
    assert 100_000 <= sum(map(len, read)) < 100_000 + 2 * formats.CHUNK_BYTES


def test_a_long_text_in_a_folder_is_whole_up_to_the_limit(tmp_path, monkeypatch):
    text = "".join(f"{i} é\n\n" for i in range(20_000))
    (tmp_path / "a.txt").write_text(text)
    assert list(corpus.documents(str(tmp_path))) == [text]
    monkeypatch.setattr(formats, "LARGEST_DOCUMENT", len(text.encode()))
    assert list(corpus.documents(str(tmp_path))) == [text]
    monkeypatch.setattr(formats, "LARGEST_DOCUMENT", len(text.encode()) - 1)
    cut = list(corpus.documents(str(tmp_path)))
    assert "".join(cut) == text and cut == list(corpus.documents(str(tmp_path / "a.txt")))


def test_giant_rows_of_parquet_and_hugging_face_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet([{"text": "a"}, {"text": "b" * 1001}]))
    monkeypatch.setattr(formats, "LARGEST_DOCUMENT", 1000)
    with pytest.raises(ValueError, match=r"a\.parquet row 1 is longer than"):
        list(corpus.documents(str(path)))
    assert list(corpus.documents(str(path), max_bytes=1)) == ["a"]
    with pytest.raises(ValueError, match="hf:x row 3 is longer"):
        formats.row_text({"text": "b" * 1001}, "text", "hf:x row 3")


def test_a_repeated_value_of_parquet_takes_little_memory(tmp_path):
    """A small file that repeats one value of 1 MiB in 2,000 rows."""
    pyarrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    texts = pyarrow.DictionaryArray.from_arrays([0] * 2000, ["b" * MIB])
    whole = pyarrow.table({"text": texts})
    table.write_table(whole, path, store_schema=False, dictionary_pagesize_limit=8 * MIB)
    assert path.stat().st_size < MIB
    before, largest = pyarrow.total_allocated_bytes(), 0
    for text in corpus.documents(str(path), max_bytes=200 * MIB):
        assert len(text) == MIB
        largest = max(largest, pyarrow.total_allocated_bytes() - before)
    assert MIB < largest < 100 * MIB
