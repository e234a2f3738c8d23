"""Tests that paths are expanded or refused before files are written, and JSON is checked."""

import json
import shutil

import numpy as np
import pytest

from data import local
from data import tokenizer as tokenizers
from data.files import path_of
from data.sources import corpus
from data.store import prepare
from tests.data.conftest import sentence

# Other schemes than those of buckets, a slash too few, and names that no bucket has.
REMOTE = ["gs:/bucket/x", "https://host/x.txt", "hf://datasets/x", "gs://ab/x", "s3:///x"]


@pytest.mark.parametrize("address", REMOTE)
@pytest.mark.parametrize("key", ["cache", "corpora", "tokenizer"])
@pytest.mark.parametrize("trained", ["bytes", "chars"])
def test_remote_addresses_are_refused_before_anything_is_made(
    config, folder_of_text, tmp_path, monkeypatch, address, key, trained
):
    monkeypatch.chdir(tmp_path)
    good = {"corpora": (str(folder_of_text),), "tokenizer": trained, "cache": "cache"}
    bad = {"corpora": (str(folder_of_text), address), "weights": (1, 1)}
    bad |= {"tokenizer": f"{address}.model", "cache": address}
    changes = {key: bad[key]} | ({"weights": (1, 1)} if key == "corpora" else {})
    with pytest.raises(
        ValueError, match=f"data.{key}=.*(is a remote address|names no bucket)"
    ) as raised:
        prepare(config(**good | changes), progress=False)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_corpora_that_are_missing_are_refused_before_anything_is_made(
    config, folder_of_text, tmp_path
):
    corpora = (str(folder_of_text), str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="missing"):
        prepare(config(corpora=corpora, weights=(1, 1), tokenizer="chars"), progress=False)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_home_is_expanded_in_every_path(config, folder_of_text, tmp_path, monkeypatch, kind):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(elsewhere)
    shutil.copytree(folder_of_text, home / "text")
    texts = [sentence(i) for i in range(200)]
    (home / "t.model").write_bytes(tokenizers.train("bpe", texts, 300).model)
    spec = "~/text" if kind == "folder" else "~/text/000.txt"
    settings = dict(tokenizer="~/t.model", validation=0.0)
    dataset = prepare(config(corpora=(spec,), cache="~/cache", **settings), progress=False)
    assert dataset.components[0].folder.parent == home / "cache"
    assert not list(elsewhere.iterdir()) and corpus.size(spec) > 0
    # The expanded path has the same shards, so nothing is built again.
    whole = config(corpora=(spec.replace("~", str(home)),), cache=str(home / "cache"), **settings)
    assert prepare(whole, progress=False).components[0].folder == dataset.components[0].folder


def test_an_unknown_home_is_one_line():
    with pytest.raises(ValueError, match=r"data\.cache='~nobody-there/x' has no home folder"):
        path_of("~nobody-there/x", "data.cache")


@pytest.mark.parametrize("name", ["a", "/a/b.txt", "./a:b", "C:/a", "hf:name", "~"])
def test_local_names_are_not_remote(name):
    path_of(name, "data.cache")


def test_sealed_is_unsealed_and_every_change_is_found():
    about = {"name": "é", "n": 12, "prefix": [1, 2], "deep": {"a": None}}
    raw = local.sealed(about)
    found = local.unsealed(raw)
    assert {key: found[key] for key in about} == about
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(raw)
        changed[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        try:
            same = local.unsealed(bytes(changed))
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            assert same == json.loads(raw)  # only white space changed
