"""Tests that an index is complete or none, and that damage to its files is found."""

import json

import numpy as np
import pytest

from data.local import sealed
from data.retrieval import folder
from data.retrieval.folder import BUILDING, MANIFEST, building, finish, read, write_array

SETTINGS = {"kind": "bm25", "words": 3}


def made(place):
    with building(place, SETTINGS) as missing:
        assert missing
        write_array(place / folder.shard_name("vectors", 0), np.arange(6.0))
        return finish(place, SETTINGS, {"kind": "bm25"})


def test_an_index_is_kept_and_read(tmp_path):
    place = tmp_path / "index"
    index = made(place)
    assert read(place).about["files"] == index.about["files"]
    assert index.named("vectors-") == ["vectors-00000.npy"]
    assert index.array("vectors-00000.npy").tolist() == list(range(6))
    assert not (place / BUILDING).exists()
    with building(place, SETTINGS) as missing:
        assert not missing
    with pytest.raises(ValueError, match="holds another index"), building(place, {"kind": "knn"}):
        pass


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip, "vectors-00000.npy is damaged, its hash differs; delete"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is cut short or too long"),
        (lambda path: path.unlink(), "vectors-00000.npy is missing"),
        (lambda path: flip(path.parent / MANIFEST), "manifest.json is damaged"),
        (lambda path: (path.parent / MANIFEST).write_bytes(b"{}"), "manifest.json is damaged"),
        (lambda path: (path.parent / MANIFEST).unlink(), "holds no index"),
    ],
)
def test_damage_is_one_line_that_names_the_file(harm, message, tmp_path):
    made(tmp_path / "index")
    read(tmp_path / "index")
    harm(tmp_path / "index" / "vectors-00000.npy")
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read(tmp_path / "index")
    assert f"retrieve={tmp_path / 'index'}" in str(error.value)


def test_a_manifest_of_another_version_or_with_other_paths_is_refused(tmp_path):
    index = made(tmp_path / "index")
    about = {key: value for key, value in index.about.items() if key != "checksum"}
    path = tmp_path / "index" / MANIFEST
    path.write_bytes(sealed(about | {"format": 99}))
    with pytest.raises(ValueError, match="has format 99"):
        read(tmp_path / "index")
    path.write_bytes(sealed(about | {"files": {"../secret": {"bytes": 0, "sha256": ""}}}))
    with pytest.raises(ValueError, match="is not a file name"):
        read(tmp_path / "index")


def test_a_build_that_was_stopped_is_no_index_and_goes_on(tmp_path):
    place = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt), building(place, SETTINGS):
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError, match="is not finished; run its isoflop index again"):
        read(place)
    other = SETTINGS | {"words": 4}
    with pytest.raises(ValueError, match="a part of another index"), building(place, other):
        pass
    made(place)
    assert json.loads((place / MANIFEST).read_bytes())["settings"] == SETTINGS


def test_folders_with_other_things_and_second_builds_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("a")
    with pytest.raises(ValueError, match="holds other files"), building(tmp_path, SETTINGS):
        pass
    with pytest.raises(ValueError, match="is a file"), building(tmp_path / "mine.txt", SETTINGS):
        pass
    with building(tmp_path / "index", SETTINGS):
        with pytest.raises(ValueError, match="being built by another process"):
            with building(tmp_path / "index", SETTINGS):
                pass
