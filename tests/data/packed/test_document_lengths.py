"""Tests that document lengths are found once, and that no file but the right one is trusted."""

from dataclasses import replace

import numpy as np
import pytest

from data import build
from data.packed import document_lengths
from data.packed.packed_rows import PackedStore
from data.store import prepare


@pytest.fixture
def store(config, folder_of_text, monkeypatch):
    """A corpus of 60 documents in several shards."""
    monkeypatch.setattr(build, "GROUP_BYTES", 8000)
    return prepare(config(corpora=(str(folder_of_text),)), progress=False)


@pytest.fixture
def reads(monkeypatch):
    """The names of the corpora whose tokens are read, one for each time."""
    names, found = [], document_lengths._found

    def spy(part, *arguments):
        names.append(part.name)
        return found(part, *arguments)

    monkeypatch.setattr(document_lengths, "_found", spy)
    return names


def lengths_of(store) -> list[int]:
    return PackedStore(store, 64).parts[0].document_lengths.tolist()


def expected(store) -> list[int]:
    train = store.components[0].splits["train"]
    ends = np.flatnonzero(np.concatenate(train.shards) == store.tokenizer.eod)
    assert len(train.shards) > 1 and len(ends) == train.n_documents > 20
    return np.diff([-1, *ends]).tolist()


def kept_in(store):
    (path,) = store.components[0].folder.glob("*.lengths")
    return path


def test_the_tokens_are_read_once(store, reads):
    first = lengths_of(store)
    assert len(reads) == 1 and first == expected(store)
    second = lengths_of(store)
    assert len(reads) == 1 and second == first
    assert kept_in(store).stat().st_size == 32 + 4 * len(first)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-1],
        lambda raw: raw[:-4],
        lambda raw: raw[:40] + bytes([raw[40] ^ 1]) + raw[41:],
        lambda raw: bytes([raw[0] ^ 1]) + raw[1:],
        lambda raw: raw[:32] + raw[36:] + raw[32:36],
    ],
)
def test_a_damaged_file_is_made_again(store, reads, damage):
    lengths_of(store)
    whole = kept_in(store).read_bytes()
    kept_in(store).write_bytes(damage(whole))
    assert lengths_of(store) == expected(store) and len(reads) == 2
    assert kept_in(store).read_bytes() == whole


def test_the_lengths_of_other_tokens_are_not_trusted(store, reads, config, folder_of_text):
    """The file of other tokens with as many documents and tokens, and that of the other split."""
    lengths_of(store)
    for file in sorted(folder_of_text.iterdir()):
        both = file.read_bytes(), file.read_bytes().replace(b"a", b"b")
        if not any(build.is_validation(build.digest_of(text), 0.2) for text in both):
            file.write_bytes(both[1])
            break
    other = prepare(config(corpora=(str(folder_of_text),)), progress=False)
    assert other.hash != store.hash and other.n_tokens == store.n_tokens
    assert other.n_documents == store.n_documents
    lengths_of(other)
    name, there = kept_in(store), kept_in(other)
    assert name.name != there.name
    there.write_bytes(name.read_bytes())
    assert lengths_of(other) == expected(other) and len(reads) == 3
    part = store.components[0]
    swapped = replace(part, splits={"train": part.splits["validation"]})
    assert (
        len(lengths_of(replace(store, components=(swapped,))))
        == part.splits["validation"].n_documents
    )
    assert len(reads) == 4


def test_a_cache_that_cannot_be_written_is_read_each_time(store, reads, monkeypatch):
    def refuse(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(document_lengths, "write_atomic", refuse)
    assert lengths_of(store) == lengths_of(store) == expected(store)
    assert len(reads) == 2 and not list(store.components[0].folder.glob("*.lengths"))
