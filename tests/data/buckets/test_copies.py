"""Tests of a data cache and of corpora in a bucket, which several machines share."""

import json
from hashlib import sha256

import numpy as np
import pytest

from data import build, shards
from data.buckets import copies
from data.files import path_of
from data.local import sealed
from data.packed.packed_rows import PackedStore
from data.store import prepare
from tests.data.conftest import sentence


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    monkeypatch.setattr(build, "GROUP_BYTES", 4000)
    monkeypatch.setattr(shards, "_verified", set())


@pytest.fixture
def corpus(shared):
    """The address of a corpus in the bucket: a folder of texts."""
    for number in range(4):
        texts = "".join(sentence(10 * number + i) for i in range(10))
        path_of(f"{shared}/text/{number:03}.txt", "x").write_text(texts)
    path_of(f"{shared}/text/.hidden/x.txt", "x").write_text("not read")
    return f"{shared}/text"


def tokens(dataset) -> np.ndarray:
    split = dataset.components[0].splits["train"]
    return split.read(np.array([0]), split.n_tokens)[0]


@pytest.mark.parametrize("tokenizer", ["bytes", "chars"])
def test_a_second_machine_fetches_what_the_first_has_built(
    config, shared, corpus, machine, monkeypatch, tmp_path, tokenizer
):
    settings = config(corpora=(corpus,), cache=f"{shared}/cache", tokenizer=tokenizer)
    first = prepare(settings, progress=False)
    machine("second")
    monkeypatch.setattr(build, "build", lambda *_, **__: pytest.fail("it builds again"))
    second = prepare(settings, progress=False)
    assert second.hash == first.hash and (tokens(second) == tokens(first)).all()
    assert second.components[0].folder != first.components[0].folder
    texts = tmp_path / "local"
    texts.mkdir()
    for number in range(4):
        whole = path_of(f"{corpus}/{number:03}.txt", "x").read_bytes()
        (texts / f"{number:03}.txt").write_bytes(whole)
    monkeypatch.undo()
    monkeypatch.setattr(build, "GROUP_BYTES", 4000)
    here = prepare(config(corpora=(str(texts),), tokenizer=tokenizer), progress=False)
    assert here.hash == first.hash


def test_document_lengths_are_kept_in_the_copy_of_each_machine(config, shared, corpus, machine):
    settings = config(corpora=(corpus,), cache=f"{shared}/cache")
    found = []
    for name in ("first", "second"):
        machine(name)
        dataset = prepare(settings, progress=False)
        folder, part = dataset.components[0].folder, PackedStore(dataset, 64).parts[0]
        assert len(list(folder.glob("train-*.lengths"))) == 1
        found.append((folder, part.document_lengths.tolist()))
        assert prepare(settings, progress=False).hash == dataset.hash  # the copy is still complete
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1]


def test_the_text_is_not_read_where_its_tokens_are(config, shared, corpus, machine, served):
    settings = config(corpora=(corpus,), cache=f"{shared}/cache")
    prepare(settings, progress=False)
    machine("second")
    read = []
    served.before = lambda request: read.append(request.name) if request.kind == "read" else None
    prepare(settings, progress=False)
    assert read and not any("/text/" in name for name in read)


def test_an_upload_that_was_killed_is_completed(config, shared, corpus, machine, monkeypatch):
    settings = config(corpora=(corpus,), cache=f"{shared}/cache")
    upload = copies.upload

    def killed(path, target):
        if "validation" in path.name:
            raise KeyboardInterrupt
        upload(path, target)

    monkeypatch.setattr(copies, "upload", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, progress=False)
    assert not list(path_of(shared, "x").rglob(copies.INDEX))
    monkeypatch.setattr(copies, "upload", upload)
    first = prepare(settings, progress=False)
    assert len(list(path_of(shared, "x").rglob(copies.INDEX))) == 1
    machine("second")
    assert prepare(settings, progress=False).hash == first.hash


def test_machines_that_build_at_once_end_with_the_same_files(shared, machine):
    """The first index decides, also where two builds differ."""
    place, found = path_of(f"{shared}/cache", "data.cache"), {}
    for name in ("first", "second"):
        machine(name)
        folder = copies.folder_of(place) / "tokens"
        folder.mkdir(parents=True)
        (folder / "a.npy").write_text(f"array of {name}")
        (folder / "last.json").write_text(json.dumps({"built by": name}))
        found[name] = folder
    machine("first")
    copies.folder_of(place)
    copies.push(found["first"], "last.json")
    machine("second")
    copies.folder_of(place)
    copies.push(found["second"], "last.json")
    assert json.loads((found["second"] / "last.json").read_text()) == {"built by": "first"}
    assert (found["second"] / "a.npy").read_text() == "array of first"


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "index"])
def test_damage_in_the_bucket_is_found(config, shared, corpus, machine, damage):
    settings = config(corpora=(corpus,), cache=f"{shared}/cache")
    prepare(settings, progress=False)
    machine("second")
    pattern = copies.INDEX if damage == "index" else "*train.bin"
    victim = next(path_of(shared, "x").rglob(pattern))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        victim.unlink()
    else:
        victim.write_bytes(content[:-1] if damage == "cut" else content)
    with pytest.raises(ValueError, match=r"delete gs://.* to rebuild it") as raised:
        prepare(settings, progress=False)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["name", "object"])
@pytest.mark.parametrize("bad", ["../out", "/tmp/out", "..", "a/../../out", ""])
def test_an_index_with_names_outside_of_its_folder_is_refused(shared, machine, key, bad):
    """Control: the same index with plain names is fetched."""
    place = path_of(f"{shared}/cache", "data.cache")
    (place / "tokens" / "obj").write_bytes(b"text")
    folder = copies.folder_of(place) / "tokens"
    for names in ({"name": "last", "object": "obj"}, {"name": "last", "object": "obj", key: bad}):
        about = {"object": names["object"], "size": 4, "sha256": sha256(b"text").hexdigest()}
        (place / "tokens" / copies.INDEX).write_bytes(sealed({"files": {names["name"]: about}}))
        if names["object"] == "obj" and names["name"] == "last":
            assert copies.pull(folder, "last") and (folder / "last").read_bytes() == b"text"
    before = sorted(copies.mirror().rglob("*"))
    with pytest.raises(ValueError, match=r"is not the name of a file.*; delete gs://.* to rebuild"):
        copies.pull(folder, "last")
    assert sorted(copies.mirror().rglob("*")) == before


def test_a_file_is_fetched_again_only_if_it_changes(shared, machine, served):
    path = path_of(f"{shared}/web.jsonl", "data.corpora")
    path.write_text("one")
    copy = copies.fetched(path)
    before = served.counts["read"]
    assert copies.fetched(path) == copy and served.counts["read"] == before
    assert copy.name == "web.jsonl" and copy.read_text() == "one"
    path.write_text("two")
    assert copies.fetched(path).read_text() == "two" and copy.read_text() == "one"


def test_a_file_that_changes_during_the_download_is_to_be_read_again(shared, machine, monkeypatch):
    path = path_of(f"{shared}/web.jsonl", "data.corpora")
    path.write_text("one")
    fetch = copies._fetch

    def late(path, *given):
        path.write_text("three")  # after its size was read
        fetch(path, *given)

    monkeypatch.setattr(copies, "_fetch", late)
    with pytest.raises(ValueError, match=r"web.jsonl changed while it was read; run this again$"):
        copies.fetched(path)
    assert copies.fetched(path).read_text() == "three"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_a_file_of_rows_is_read_from_a_bucket(config, shared, machine, tmp_path, name):
    import gzip

    rows = [{"text": sentence(i)} for i in range(30)]
    here = tmp_path / name
    if name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), here)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        here.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    path_of(f"{shared}/{name}", "x").write_bytes(here.read_bytes())
    there = prepare(config(corpora=(f"{shared}/{name}",)), progress=False)
    assert there.hash == prepare(config(corpora=(str(here),)), progress=False).hash


def test_a_folder_of_weights_is_made_here_and_fetched_whole(shared, machine, tmp_path):
    target = path_of(f"{shared}/weights", "to_hf")
    with copies.made_here(target) as folder:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(bytes(100))
        assert folder.name == "weights" and not target.exists()
    machine("second")
    found = copies.fetched_folder(target)
    assert {p.name: p.read_bytes() for p in found.iterdir()} == {
        "config.json": b"{}",
        "model.safetensors": bytes(100),
    }
    (target / "config.json").write_text("{ }")
    assert copies.fetched_folder(target) != found  # another version is another copy
    assert copies.fetched_folder(tmp_path) == tmp_path
    with pytest.raises(ZeroDivisionError), copies.made_here(target.with_name("half")) as folder:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        raise ZeroDivisionError
    assert not target.with_name("half").exists()


def test_a_mirror_that_cannot_be_written_is_one_line(config, shared, corpus, machine, tmp_path):
    (tmp_path / "machines").write_text("a file in place of the folder")
    with pytest.raises(ValueError, match=f"{copies.PLACE}") as raised:
        prepare(config(corpora=(corpus,), cache=f"{shared}/cache"), progress=False)
    assert "\n" not in str(raised.value)
