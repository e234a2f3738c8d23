"""Tests that datasets are built once, identically everywhere, and that errors name the cause."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data import build, shards, store
from data import tokenizer as tokenizers
from data.sources import corpus
from data.store import prepare
from tests.data.conftest import sentence

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Makes shards small, and forgets which shards other tests have verified."""
    monkeypatch.setattr(build, "GROUP_BYTES", 4000)
    monkeypatch.setattr(shards, "_verified", set())


def split_texts(dataset, split, component=0) -> list[str]:
    """The documents of a split, read back from its tokens."""
    part = dataset.components[component].splits[split]
    tokens = part.read(np.array([0]), part.n_tokens)[0]
    ends = np.flatnonzero(tokens == dataset.tokenizer.eod)
    assert ends[-1] == len(tokens) - 1
    return [dataset.tokenizer.decode(d[:-1]) for d in np.split(tokens, ends + 1)[:-1]]


@pytest.mark.parametrize(
    ("tokenizer", "vocab_size"), [("bytes", 0), ("chars", 0), ("bpe", 296), ("unigram", 296)]
)
def test_text_is_all_there_in_order(config, folder_of_text, tokenizer, vocab_size):
    settings = config(
        corpora=(str(folder_of_text),), tokenizer=tokenizer, vocab_size=vocab_size, validation=0.3
    )
    dataset = prepare(settings, progress=False)
    texts = list(corpus.documents(str(folder_of_text)))
    train, held_out = split_texts(dataset, "train"), split_texts(dataset, "validation")
    assert [text for text in texts if text in set(train)] == train
    assert sorted(train + held_out) == sorted(texts) and not set(train) & set(held_out)
    assert dataset.n_documents == {"train": len(train), "validation": len(held_out)}
    assert dataset.n_bytes["train"] == sum(len(text.encode()) for text in train)
    split = dataset.components[0].splits["train"]
    tokens = split.read(np.array([0]), split.n_tokens)[0]
    assert dataset.token_bytes[tokens].sum() == dataset.n_bytes["train"]
    assert len(split.shards) > 3
    assert dataset.vocab_size == dataset.tokenizer.vocab_size == len(dataset.token_bytes)


def test_no_document_changes_sides_when_others_are_added(config, folder_of_text):
    settings = config(corpora=(str(folder_of_text),))
    before = prepare(settings, progress=False)
    for number in range(100, 160):  # sorted before, between and after the others
        (folder_of_text / f"{number % 7}{number}.txt").write_text(sentence(number))
    after = prepare(settings, progress=False)
    assert before.hash != after.hash
    for split in ("train", "validation"):
        assert set(split_texts(before, split)) <= set(split_texts(after, split))
    # Negative control: a split by position does move documents.
    first = list(corpus.documents(str(folder_of_text)))[::5]
    assert not set(split_texts(before, "validation")) <= set(first)


def test_share_held_out_grows_without_exchange():
    digests = [build.digest_of(sentence(i).encode()) for i in range(4000)]
    small, large = ({d for d in digests if build.is_validation(d, share)} for share in (0.02, 0.1))
    assert small < large and abs(len(large) - 400) < 80
    assert not any(build.is_validation(d, 0) for d in digests)


def test_hash_is_of_content_tokenizer_and_split_alone(config, folder_of_text, tmp_path):
    def hash_of(folder, **changes):
        return prepare(config(corpora=(str(folder),), **changes), progress=False).hash

    base = hash_of(folder_of_text)
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(folder_of_text, moved)
    os.utime(moved / "000.txt", (1, 1))
    assert hash_of(moved, cache=str(tmp_path / "cache2")) == base
    changed = [
        hash_of(folder_of_text, validation=0.5),
        hash_of(folder_of_text, tokenizer="chars"),
        hash_of(folder_of_text, max_bytes=2000),
    ]
    (moved / "000.txt").write_text(sentence(0).replace("\n", "!"))
    assert len({base, *changed, hash_of(moved)}) == 5


def test_hash_does_not_depend_on_workers(folder_of_text, tmp_path):
    manifests = []
    for workers in (1, 2):
        folder = tmp_path / f"built-by-{workers}"
        folder.mkdir()
        documents = corpus.documents(str(folder_of_text))
        tokenizer = tokenizers.from_spec("bytes")
        options = {"size": None, "tokenizer": tokenizer, "validation": 0.2, "workers": workers}
        build.build(folder, "x", documents, **options, advance=lambda n: None)
        manifests.append((folder / "manifest.json").read_text())
    assert manifests[0] == manifests[1]
    assert len(json.loads(manifests[0])["splits"]["train"]["shards"]) > 3


def test_built_once_then_opened(config, folder_of_text, monkeypatch):
    settings = config(corpora=(str(folder_of_text),), tokenizer="bpe", vocab_size=300)
    first = prepare(settings, progress=False)
    names = {path.name for path in first.components[0].folder.iterdir()}
    assert names >= {"manifest.json", "tokenizer.json", "tokenizer.model"}
    assert not [name for name in names if name.endswith(".tmp") or re.match(r"\d+-.*json", name)]
    monkeypatch.setattr(build, "build", None)
    monkeypatch.setattr(tokenizers, "train", None)
    again = prepare(settings, progress=False)
    assert again.hash == first.hash and again.components[0].folder == first.components[0].folder
    (folder_of_text / "new.txt").write_text("new")
    with pytest.raises(TypeError):  # now it must build
        prepare(settings, progress=False)


DAMAGE = {
    "flipped": (lambda raw: bytes([raw[0] ^ 1]) + raw[1:], "is damaged: its SHA-256"),
    "cut": (lambda raw: raw[:-2], r"has \d+ bytes instead of"),
    "longer": (lambda raw: raw + b"\0\0", r"has \d+ bytes instead of"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_damaged_shard_is_refused_by_name(config, folder_of_text, monkeypatch, kind, split):
    settings = config(corpora=(str(folder_of_text),))
    folder = prepare(settings, progress=False).components[0].folder
    prepare(settings, progress=False)  # intact shards open again
    shard = sorted(folder.glob(f"*.{split}.bin"))[1]
    change, message = DAMAGE[kind]
    shard.write_bytes(change(shard.read_bytes()))
    with pytest.raises(ValueError, match=f"{shard.name} {message}.*delete {folder} to rebuild"):
        prepare(settings, progress=False)
    shutil.rmtree(folder)
    prepare(settings, progress=False)


def test_every_single_flipped_bit_is_found(config, folder_of_text):
    settings = config(corpora=(str(folder_of_text),))
    folder = prepare(settings, progress=False).components[0].folder
    rng = np.random.default_rng(0)
    paths = sorted(folder.glob("*.bin"))
    for _ in range(50):
        path = paths[rng.integers(len(paths))]
        raw = bytearray(path.read_bytes())
        bit = rng.integers(8 * len(raw))
        raw[bit // 8] ^= 1 << (bit % 8)
        original = path.read_bytes()
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=path.name):
            prepare(settings, progress=False)
        path.write_bytes(original)
    prepare(settings, progress=False)


def test_missing_shard_and_edited_manifest_are_refused(config, folder_of_text):
    settings = config(corpora=(str(folder_of_text),))
    folder = prepare(settings, progress=False).components[0].folder
    shard = sorted(folder.glob("*.train.bin"))[0]
    shard.rename(folder / "away")
    with pytest.raises(ValueError, match=f"{shard.name} is missing; delete {folder}"):
        prepare(settings, progress=False)
    (folder / "away").rename(shard)
    manifest = folder / "manifest.json"
    text = manifest.read_text()
    edits = [("}", ""), ('"<u2"', '"<u4"'), ('"bytes": ', '"bytes": 1'), ("0.2", "0.3")]
    for old, new in edits:
        edited = text.replace(old, new, 1)
        assert edited != text
        manifest.write_text(edited)
        with pytest.raises(ValueError, match=r"manifest.json is damaged; delete"):
            prepare(settings, progress=False)


SLOW_BUILD = """
import sys, time
from types import SimpleNamespace
from data import build, store
from data.sources import corpus

def slowly(*args):
    for text in documents(*args):
        time.sleep(float(sys.argv[3]))
        yield text

if __name__ == "__main__":
    build.GROUP_BYTES = 4000
    build._useful_workers = lambda size, tokenizer: 2
    documents, corpus.documents = corpus.documents, slowly
    print(store.prepare(SimpleNamespace(
        corpora=(sys.argv[1],), weights=(1.0,), text_key="text", tokenizer="bytes", vocab_size=0,
        validation=0.2, cache=sys.argv[2], max_bytes=0, held_out=()), progress=False).hash)
"""


def start_build(tmp_path, corpus_folder, cache, pause):
    script = tmp_path / "slow_build.py"
    script.write_text(SLOW_BUILD)
    return subprocess.Popen(
        [sys.executable, str(script), str(corpus_folder), str(cache), str(pause)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    ids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                ids.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return ids


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this machine has no /proc")
def test_killed_build_goes_on_with_what_it_had(config, folder_of_text, tmp_path):
    cache = tmp_path / "killed"
    process = start_build(tmp_path, folder_of_text, cache, pause=0.05)
    wait_for(lambda: len(list(cache.glob("*/0*.json"))) >= 3)
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    (folder,) = cache.glob("text-*")
    assert not (folder / "manifest.json").exists()
    kept = [p for p in folder.glob("*.bin") if (folder / f"{p.name.split('.')[0]}.json").exists()]
    (folder / "leftover.bin.1.tmp").write_bytes(b"half a shard")
    written = {path: path.stat().st_mtime_ns for path in kept}
    assert len(written) >= 3

    settings = config(corpora=(str(folder_of_text),), cache=str(cache))
    resumed = prepare(settings, progress=False)
    assert {path: path.stat().st_mtime_ns for path in kept} == written
    assert resumed.hash == prepare(config(corpora=settings.corpora), progress=False).hash
    assert not list(folder.glob("*.tmp")) and not list(folder.glob("0*.json"))


def test_a_finished_shard_that_was_damaged_since_is_made_again(config, folder_of_text, tmp_path):
    settings = config(corpora=(str(folder_of_text),))
    whole = prepare(settings, progress=False)
    other = config(corpora=settings.corpora, cache=str(tmp_path / "other"))
    calls = []

    def stop_after_four(n):
        calls.append(n)
        if len(calls) == 4:
            raise KeyboardInterrupt

    folder = tmp_path / "other" / whole.components[0].folder.name
    folder.mkdir(parents=True)
    tokenizer = tokenizers.from_spec("bytes")
    with pytest.raises(KeyboardInterrupt):
        documents = corpus.documents(str(folder_of_text))
        options = {"size": None, "tokenizer": tokenizer, "validation": 0.2, "workers": 1}
        build.build(folder, "x", documents, **options, advance=stop_after_four)
    first, second, *_ = sorted(folder.glob("*.train.bin"))
    first.write_bytes(b"\0" + first.read_bytes()[1:])
    second.unlink()
    assert prepare(other, progress=False).hash == whole.hash


def test_two_builders_at_once_make_one_dataset(folder_of_text, tmp_path):
    cache = tmp_path / "shared"
    both = [start_build(tmp_path, folder_of_text, cache, pause=0.01) for _ in range(2)]
    hashes = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(hashes) == 1 and hashes.pop()
    assert len(list(cache.iterdir())) == 1


def test_mixture_has_the_hash_of_its_parts_and_weights(config, folder_of_text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("".join(sentence(i) + "\n" for i in range(300, 600)))
    corpora = (str(folder_of_text), str(other))
    mixed = prepare(config(corpora=corpora, weights=(0.7, 0.3)), progress=False)
    assert mixed.weights == (7, 3)
    alone = [prepare(config(corpora=(spec,)), progress=False) for spec in corpora]
    assert [part.hash for part in mixed.components] == [dataset.hash for dataset in alone]
    for counts in ("n_tokens", "n_bytes", "n_documents"):
        for split in ("train", "validation"):
            parts = sum(getattr(dataset, counts)[split] for dataset in alone)
            assert getattr(mixed, counts)[split] == parts
    flipped = prepare(config(corpora=corpora, weights=(0.3, 0.7)), progress=False)
    same = prepare(config(corpora=corpora, weights=(70, 30)), progress=False)
    assert mixed.hash == same.hash != flipped.hash


def test_another_corpus_can_be_held_out(config, folder_of_text, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(sentence(n) for n in range(5000, 5060)))
    one = (str(folder_of_text),)
    plain = prepare(config(corpora=one, validation=0.3), progress=False)
    dataset = prepare(config(corpora=one, held_out=str(other), tokenizer="bytes"), progress=False)
    assert split_texts(dataset, "train") == list(corpus.documents(str(folder_of_text)))
    assert split_texts(dataset, "validation") == list(corpus.documents(str(other)))
    assert dataset.n_documents["validation"] == len(list(corpus.documents(str(other))))
    assert dataset.hash not in {plain.hash, prepare(config(corpora=one, validation=0.0), progress=False).hash}  # fmt: skip  # noqa: E501
    on_less = prepare(config(corpora=(str(tmp_path / "other.txt"),), held_out=str(other)), progress=False)  # fmt: skip  # noqa: E501
    assert on_less.held_out == dataset.held_out != plain.held_out == ""
    other.write_text(other.read_text() + "More.")
    assert prepare(config(corpora=one, held_out=(str(other),)), progress=False).hash != dataset.hash
    # A tokenizer trained with it sees all of the training text and nothing of the other.
    bpe = prepare(
        config(corpora=one, held_out=str(other), tokenizer="chars", validation=0.9), progress=False
    )
    assert bpe.vocab_size >= len(set("".join(corpus.documents(str(folder_of_text)))))


def test_tokenizer_is_trained_on_training_documents_only(config, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [sentence(i) + chr(0x4E00 + i) for i in range(200)]
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    dataset = prepare(config(corpora=(str(path),), tokenizer="chars"), progress=False)
    marks = {text[-1] for text in rows}
    known = marks & set(dataset.tokenizer.model.decode("utf-32-le"))
    trained_on = {text[-1] for text in split_texts(dataset, "train")}
    assert known == trained_on < marks


def test_sample_is_bounded_and_takes_no_order_into_account(monkeypatch):
    documents = [(build.digest_of(sentence(i).encode()), sentence(i)) for i in range(100)]
    sample = store.sampled(documents, 5000)
    assert sample == store.sampled(documents[::-1], 5000)
    assert 4000 < sum(len(text.encode()) for text in sample) <= 5000
    assert sample != [text for _, text in documents[: len(sample)]]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(corpora=()), ValueError, "data.corpora is empty"),
        (dict(corpora=("a", "b")), ValueError, "data.weights=.*differ in length"),
        (dict(weights=(0.0,)), ValueError, "data.weights=.*above 0"),
        (dict(corpora=("a", "b"), weights=(1, 1e-5)), ValueError, "below 1 in 1000"),
        (dict(validation=1.5), ValueError, "data.validation=1.5"),
        (dict(held_out=("stdlib", "b")), ValueError, "data.held_out=.*differ in length"),
        (dict(corpora=("/no/such",)), FileNotFoundError, "data.corpora='/no/such' does not exist"),
        (dict(tokenizer="syllables"), ValueError, "data.tokenizer='syllables'"),
        (dict(vocab_size=300), ValueError, "data.vocab_size=300.*bytes has 256"),
    ],
)
def test_bad_settings_are_refused(config, changes, error, message, tmp_path):
    with pytest.raises(error, match=message):
        prepare(config(**changes), progress=False)
    assert not list(tmp_path.glob("cache/*/*.bin"))


def test_a_corpus_that_is_refused_leaves_no_dataset(config, folder_of_text):
    (folder_of_text / "zz.bin").write_bytes(b"\0\1\2")
    for _ in range(2):  # the first attempt does not affect the second
        with pytest.raises(ValueError, match=r"zz.bin is not text: NUL byte at offset 0"):
            prepare(config(corpora=(str(folder_of_text),)), progress=False)
    (folder_of_text / "zz.bin").unlink()
    assert prepare(config(corpora=(str(folder_of_text),)), progress=False).n_tokens["train"]
