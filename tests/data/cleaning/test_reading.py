"""Tests of reading: units of any size, damaged files, other encodings, bombs, web archives."""

import gzip
import io
import json
from pathlib import Path

import pytest
import zstandard

from data.cleaning.input import units
from data.cleaning.input.raw import Damaged
from data.cleaning.input.reading import documents


def read(spec: Path, unit_bytes: int = 1 << 20, expansion: float = 200.0):
    """(texts, faults of rows, faults of files) of a corpus."""
    texts, rows, files = [], [], []
    for unit in units.plan([str(spec)], unit_bytes):
        for piece in unit.pieces:
            try:
                for one in documents(piece, "text", expansion, lambda *row: rows.append(row)):
                    texts.append((one.where, one.text, one.other_encoding))
            except Damaged as damage:
                files.append((piece.name, str(damage)))
    return texts, rows, files


def jsonl(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


@pytest.mark.parametrize("unit_bytes", [1, 7, 64, 100, 4096])
def test_lines_are_read_once_wherever_units_end(unit_bytes, tmp_path):
    texts = [f"{i} " + "é" * (i % 40) for i in range(60)]
    (tmp_path / "a.jsonl").write_bytes(jsonl(texts)[:-1])  # without the last newline
    found = read(tmp_path, unit_bytes)
    assert [text for _, text, _ in found[0]] == texts and found[1:] == ([], [])
    assert found == read(tmp_path, 1 << 20)  # places too


@pytest.mark.parametrize("unit_bytes", [10, 10_000])
def test_parquet(unit_bytes, tmp_path):
    import pyarrow
    from pyarrow import parquet

    texts = [f"text {i}" for i in range(50)]
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", row_group_size=7)
    found = read(tmp_path, unit_bytes)
    assert [text for _, text, _ in found[0]] == texts
    assert len(units.plan([str(tmp_path)], unit_bytes)) == (8 if unit_bytes == 10 else 1)
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(raw[:200] + b"\xff" * 30 + raw[230:])
    assert len(read(tmp_path)[2]) == 1


def test_small_files_share_a_unit_and_folders_are_sorted(tmp_path):
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(name * 10)
    assert [text for _, text, _ in read(tmp_path)[0]] == ["a" * 10, "b" * 10, "c" * 10]
    assert [len(unit.pieces) for unit in units.plan([str(tmp_path)], 20)] == [2, 1]


def test_a_single_text_becomes_documents(tmp_path):
    book = "".join(f"Line {i} of the book.\n" + "\n" * (i % 9 == 0) for i in range(3000))
    (tmp_path / "book.txt").write_text(book)
    texts = [text for _, text, _ in read(tmp_path / "book.txt")[0]]
    assert "".join(texts) == book and len(texts) > 5
    assert len(read(tmp_path)[0]) == 1  # as one file of a folder
    (tmp_path / "long.txt").write_text("äöü " * 40_000)  # no line end
    texts = [text for _, text, _ in read(tmp_path / "long.txt")[0]]
    assert "".join(texts) == "äöü " * 40_000 and len(texts) > 5


def test_damaged_rows_are_skipped(tmp_path):
    lines = [b'{"text": "a"}', b"{not json", b'{"other": 1}', b'{"text": 5}', b'{"text": null}',
             b"\xff\x00\xff", b'{"text": "b"}']  # fmt: skip
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    texts, rows, files = read(tmp_path)
    assert [text for _, text, _ in texts] == ["a", "", "b"] and not files
    assert [where for where, _ in rows] == ["a.jsonl byte 14", "a.jsonl byte 24",
                                            "a.jsonl byte 37", "a.jsonl byte 64"]  # fmt: skip
    assert "no key input.text_key='text'; keys found: other" in rows[1][1]


def test_a_damaged_archive_ends_where_its_damage_is(tmp_path):
    whole = jsonl([f"text {i} {hash(str(i))}" for i in range(3000)])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(whole)[:-2000])
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress(whole))
    (tmp_path / "c.jsonl.zst").write_bytes(b"this is no zstandard")
    texts, rows, files = read(tmp_path)
    assert [name for name, _ in files] == ["a.jsonl.gz", "c.jsonl.zst"] and not rows
    assert 3000 < len(texts) < 6000
    assert "damaged or not gzip" in files[0][1] and str(tmp_path) not in files[0][1]


@pytest.mark.parametrize("name", ["bomb.txt.gz", "bomb.jsonl.zst", "bomb.csv.gz"])
def test_a_bomb_is_damaged(name, tmp_path, monkeypatch):
    monkeypatch.setattr("data.cleaning.input.raw.SLACK", 1000)
    row = jsonl(["x" * 1000])
    content = b"text\n" + b"x,\n" * 100_000 if "csv" in name else row * 3000
    packed = gzip.compress(content) if name.endswith("gz") else zstandard.compress(content)
    (tmp_path / name).write_bytes(packed)
    files = read(tmp_path, expansion=20.0)[2]
    assert len(files) == 1 and "input.max_expansion=20" in files[0][1]
    assert "csv" in name or not read(tmp_path, expansion=100_000.0)[2]


def test_encodings_are_mixed(tmp_path):
    (tmp_path / "a.txt").write_bytes("schön — Köln\n".encode() + "schön\n".encode("cp1252") + b"x")
    (tmp_path / "b.txt").write_bytes("schön".encode("utf-16"))
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbf" + "schön".encode())
    (tmp_path / "d.jsonl").write_bytes(
        '{"text": "schön"}\n'.encode("cp1252") + '{"text": "ü"}'.encode()
    )
    (tmp_path / "e.txt").write_bytes(b"a\0b")
    (tmp_path / "f.bin").write_bytes(b"%PDF-1.4 x")
    texts, rows, files = read(tmp_path)
    assert [text for _, text, _ in texts] == [
        "schön — Köln\nschön\nx",
        "schön",
        "schön",
        "schön",
        "ü",
    ]
    assert [other for *_, other in texts] == [1, 0, 0, 1, 0] and not rows
    assert [why for _, why in files] == ["it is not text: NUL byte at offset 1",
                                         "it is not text: it holds PDF"]  # fmt: skip


def archive(records: list[tuple[str, str, bytes]]) -> bytes:
    """A .warc.gz of (record type, content type, content)."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    stream = io.BytesIO()
    writer = WARCWriter(stream, gzip=True)
    for number, (kind, mime, content) in enumerate(records):
        http = StatusAndHeaders("200 OK", [("Content-Type", mime)], protocol="HTTP/1.0")
        address = f"http://example.org/{number}"
        record = writer.create_warc_record(
            address, kind, payload=io.BytesIO(content), warc_content_type=mime,
            http_headers=http if kind == "response" else None,
        )  # fmt: skip
        writer.write_record(record)
    return stream.getvalue()


def test_web_archives(tmp_path):
    paragraph = "This is the main text of the page, which has some words. " * 6
    page = f"<html><body><nav>Home</nav><article><p>{paragraph}</p></article></body></html>"
    raw = archive([("response", "text/html", page.encode()), ("response", "image/png", b"\x89")])
    (tmp_path / "a.warc.gz").write_bytes(raw)
    wet = archive([("conversion", "text/plain", "Köln\nschön".encode())] * 2)
    (tmp_path / "b.warc.wet.gz").write_bytes(wet)
    texts, rows, files = read(tmp_path)
    assert not rows and not files
    assert [text for _, text, _ in texts][1:] == ["Köln\nschön"] * 2
    assert paragraph.strip() in texts[0][1] and "Home" not in texts[0][1]
    assert texts[0][0] == "a.warc.gz record 1 http://example.org/0"
    (tmp_path / "b.warc.wet.gz").write_bytes(b"this is no archive")
    (tmp_path / "a.warc.gz").write_bytes(raw[: len(raw) // 2])
    assert [name for name, _ in read(tmp_path)[2]] == ["a.warc.gz", "b.warc.wet.gz"]
