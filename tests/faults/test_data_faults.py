"""Tests with random faults in a dataset cache: opening it gives the right data or fails."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data import build, shards
from data import tokenizer as tokenizers
from data.store import TokenStore, prepare
from tests.data.conftest import sentence

DAMAGED_JSON = {
    "empty": b"",
    "array": b"[]",
    "object": b"{}",
    "number": b"1",
    "string": b'"x"',
    "null": b"null",
    "deep arrays": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "not UTF-8": b'{"kind": "\xff\xfe"}',
    "long number": b"1" * 10_000,
}


def flip(raw: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(raw)
    changed[rng.integers(len(raw))] ^= 1 << rng.integers(8)
    return bytes(changed)


def truncate(raw: bytes, rng: np.random.Generator) -> bytes:
    return raw[: rng.integers(len(raw))]


def replace(raw: bytes, rng: np.random.Generator) -> bytes:
    begin = int(rng.integers(len(raw)))
    length = int(rng.integers(1, 64))
    return raw[:begin] + rng.bytes(length) + raw[begin + length :]


def append(raw: bytes, rng: np.random.Generator) -> bytes:
    return raw + rng.bytes(int(rng.integers(1, 64)))


FAULTS = [flip, truncate, replace, append, None]  # None: the file is deleted


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Makes shards small, and forgets which shards other tests have verified."""
    monkeypatch.setattr(build, "GROUP_BYTES", 4000)
    monkeypatch.setattr(shards, "_verified", set())


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": sentence(i)}) + "\n" for i in range(60)))
    return path


def settings(text: Path, cache: Path, tokenizer: str = "chars") -> SimpleNamespace:
    return SimpleNamespace(
        corpora=(str(text),),
        weights=(1.0,),
        text_key="text",
        tokenizer=tokenizer,
        vocab_size=300 if tokenizer == "bpe" else 0,
        validation=0.2,
        cache=str(cache),
        max_bytes=0,
        held_out=(),
    )


def content(dataset: TokenStore) -> list:
    """Everything that training reads from a dataset."""
    splits = dataset.components[0].splits
    return [
        *(b"".join(shard.tobytes() for shard in splits[name].shards) for name in shards.SPLITS),
        *(dataset.n_tokens, dataset.n_bytes, dataset.n_documents),
        *(dataset.hash, dataset.tokenizer.fingerprint, dataset.tokenizer.name),
        *(dataset.tokenizer.pieces, dataset.tokenizer.eod, dataset.tokenizer.prefix),
    ]


def open_or_refuse(config: SimpleNamespace, wanted: list, damaged: Path) -> bool:
    """Whether the dataset opens with the content `wanted`; False for a valid error message."""
    try:
        dataset = prepare(config, progress=False)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 500
        assert damaged.name in message or damaged.parent.name in message
        assert f"delete {damaged.parent} to rebuild it" in message
        return False
    assert content(dataset) == wanted
    return True


@pytest.mark.parametrize("tokenizer", ["chars", "bpe"])
def test_a_damaged_cache_is_rebuilt_or_refused(text, tmp_path, tokenizer):
    """Makes 50 faults in random files of a cache, one by one, and follows the advice of errors."""
    cache, whole = tmp_path / "cache", tmp_path / "whole"
    config = settings(text, cache, tokenizer)
    wanted = content(prepare(config, progress=False))
    shutil.copytree(cache, whole)
    names = sorted(path.relative_to(cache) for path in cache.rglob("*") if path.is_file())
    assert len(names) > 10
    rng, refused = np.random.default_rng(0), 0
    for number in range(50):
        damaged = cache / names[rng.integers(len(names))]
        fault, raw = FAULTS[number % len(FAULTS)], damaged.read_bytes()
        if fault is None:
            damaged.unlink()
        else:
            damaged.write_bytes(fault(raw, rng) if raw else b"\xff")
        if not open_or_refuse(config, wanted, damaged):
            refused += 1
            shutil.rmtree(damaged.parent)
            assert content(prepare(config, progress=False)) == wanted
        shutil.rmtree(cache)
        shutil.copytree(whole, cache)
        shards._verified.clear()
    assert refused > 25


@pytest.mark.parametrize("fault", [flip, truncate, replace, None])
def test_a_damaged_build_goes_on_to_the_same_dataset(text, tmp_path, fault):
    """Damages records and shards of a build that was killed before it wrote its manifest."""
    wanted = content(prepare(settings(text, tmp_path / "other"), progress=False))
    cache = tmp_path / "cache"
    config = settings(text, cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "write_manifest", None)
        with pytest.raises(TypeError):
            prepare(config, progress=False)
    (folder,) = cache.glob("rows-*")
    rng = np.random.default_rng(1)
    files = sorted(path for path in folder.iterdir() if path.name[0] == "0")
    assert {path.suffix for path in files} == {".json", ".bin"}
    for damaged in files[::2]:
        if fault is None:
            damaged.unlink()
        else:
            damaged.write_bytes(fault(damaged.read_bytes(), rng))
    assert content(prepare(config, progress=False)) == wanted


@pytest.mark.parametrize("kind", DAMAGED_JSON)
def test_damaged_json_of_a_cache_is_one_line(text, tmp_path, kind):
    cache = tmp_path / "cache"
    config = settings(text, cache)
    wanted = content(prepare(config, progress=False))
    files = sorted(cache.rglob("*.json"))
    assert [path.name for path in files] == ["manifest.json", "tokenizer.json", "tokenizer.json"]
    for damaged in files:
        raw = damaged.read_bytes()
        damaged.write_bytes(DAMAGED_JSON[kind])
        assert not open_or_refuse(config, wanted, damaged)
        damaged.write_bytes(raw)
    assert open_or_refuse(config, wanted, files[0])


@pytest.mark.parametrize("kind", DAMAGED_JSON)
def test_damaged_json_of_a_run_and_of_records_is_one_line(tmp_path, kind):
    tokenizers.from_spec("bytes").save(tmp_path)
    damaged = tmp_path / "tokenizer.json"
    damaged.write_bytes(DAMAGED_JSON[kind])
    with pytest.raises(ValueError, match=f"{damaged} is damaged .*delete {tmp_path}") as raised:
        tokenizers.load(tmp_path)
    assert "\n" not in str(raised.value)
    (tmp_path / "00000-ab.json").write_bytes(DAMAGED_JSON[kind])
    assert build._finished_record(tmp_path, "00000-ab") is None
    with pytest.raises(ValueError, match=r"data\.tokenizer") as raised:
        tokenizers.from_spec(str(damaged))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "words"},
        {"kind": None},
        {"kind": []},
        {"name": 3},
        {"name": "other"},
        {"prefix": [7]},
        {"prefix": 7},
        {"fingerprint": "0" * 64},
        {"kind": "chars"},
    ],
)
def test_an_edited_tokenizer_json_is_refused_or_the_same(tmp_path, change):
    """With a checksum, and without one as older versions wrote it."""
    tokenizers.from_spec("bytes").save(tmp_path)
    path = tmp_path / "tokenizer.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | change))
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        tokenizers.load(tmp_path)
    del about["checksum"]
    path.write_text(json.dumps(about))
    assert tokenizers.load(tmp_path).fingerprint == about["fingerprint"]
    path.write_text(json.dumps(about | change))
    if change == {"name": "other"} or change == {"prefix": [7]}:
        tokenizers.load(tmp_path)
    else:
        with pytest.raises(ValueError, match=f"delete {tmp_path}"):
            tokenizers.load(tmp_path)
