"""Tests of paths that may be in a bucket: what is refused, and that no code bypasses them."""

import ast
import importlib.util
import pickle
from pathlib import Path

import pytest

from data import files
from tests import house

# Calls that read a name on this machine only, by file, with what makes it one.
LOCAL = {
    "data/files.py": "makes the paths",
    "data/atomic.py": "the branch for this machine",
    "data/buckets": "their copies on this machine",
    "data/chat/chat_store.py": "reads the mirror of the cache",
    "data/shards.py": "memory-maps the mirror of the cache",
    "data/caching/folders.py": "locks the mirror of the cache",
    "data/cleaning": "the result and the work on this machine",
    "data/retrieval": "writes the mirror of an index, reads that of a corpus",
    "data/sources/drawn/spoken_digits.py": "a temporary folder",
    "data/sources/compression.py": "reads the mirror of a corpus",
    "data/sources/corpus.py": "the standard library",
    "data/sources/messages.py": "installed packages",
    "launch/checkout.py": "the checkout",
    "launch/cluster": "records and scripts on this machine",
    "launch/coding/same_bits.py": "the processor",
    "launch/compile/variants.py": "a temporary folder",
    "launch/config/config_file.py": "frames of a config file",
    "launch/pilot/rounds.py": "a temporary folder",
    "launch/restored.py": "a checkpoint's copy on this machine",
    "launch/runners/local.py": "logs on this machine",
    "launch/runners/ray": "the checkout, and processes",
    "launch/search/asker.py": "the branch for this machine",
    "launch/sweep/followed.py": "the branch for this machine",
    "launch/sweep/groups.py": "logs on this machine",
    "launch/trial/folder.py": "the branch for this machine",
    "launch/trial/owner.py": "the branch for this machine",
    "model/huggingface": "reads the mirror of a folder of weights",
    "scaling/drafts.py": "makes the paths",
    "launch/verbs/machines/cluster.py": "records on this machine",
    "train/checkpoint.py": "the branch for this machine",
    "train/checkpoints": "the branch for this machine",
    "train/counting.py": "the branch for this machine",
    "train/metrics.py": "the branch for this machine",
    "train/viewers/tensorboard.py": "a temporary folder",
    "train/objectives/preference/stored.py": "locks the mirror of the cache",
    "launch/export": "stores of other programs, on this machine",
    "launch/conversion/adapters.py": "writes the mirror of a folder",
    "configs/study/distillation.py": "teachers on this machine",
}
SHUTIL = {"shutil.rmtree", "shutil.move", "shutil.copy", "shutil.copyfile", "shutil.copytree"}
OS = {"replace", "rename", "remove", "unlink", "makedirs", "listdir", "scandir", "link", "walk"}


def local_calls(source: str) -> list[str]:
    """The calls in a file that take the name of a file on this machine."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        ours = node.args and ast.unparse(node.args[0]) == "__file__"
        if name in ("Path", "pathlib.Path", "open") and not ours:
            found.append(name)
        if (name.startswith("os.") and name[3:] in OS) or name in SHUTIL:
            found.append(name)
    return found


def test_paths_that_a_user_names_may_be_in_a_bucket():
    """No other file than those of LOCAL opens a name as one of this machine."""
    found = {
        file: calls
        for file, text in house.sources().items()
        if not file.startswith("tests/") and (calls := local_calls(text))
    }
    allowed = {file for file in found if any(file.startswith(name) for name in LOCAL)}
    assert {file: found[file] for file in found.keys() - allowed} == {}


@pytest.mark.parametrize(
    "planted", ["Path(x)", "open(x)", "os.replace(a, b)", "shutil.rmtree(x)", "pathlib.Path(x)"]
)
def test_a_planted_call_is_found(planted):
    assert local_calls(f"def f(x):\n    return {planted}")
    assert not local_calls("HERE = Path(__file__).parent\nx.open()\nto_path(x)")


@pytest.mark.parametrize("address", ["gs://runs/a/b", "s3://runs/a/b"])
def test_a_path_in_a_bucket_keeps_its_address(address):
    path = files.path_of(address, "workdir")
    assert files.is_remote(path) and str(path) == address and files.to_path(path) is path
    assert str(path / "c" / "d.json") == f"{address}/c/d.json"
    assert str(path.parent.with_name("z.x")) == address.rpartition("/")[0][:-1] + "z.x"
    assert (path.name, path.resolve(), path.absolute()) == ("b", path, path)
    assert pickle.loads(pickle.dumps(path)) == path
    assert type(pickle.loads(pickle.dumps(path)) / "x") is type(path)


def test_a_path_on_this_machine_is_of_pathlib():
    assert type(files.path_of("a/b", "workdir")) is type(Path("a/b"))
    assert not files.is_remote(files.to_path("a/b")) and files.to_path("a") == Path("a")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://ab/x", "names no bucket ('ab')"),
        ("gs://", "names no bucket ('')"),
        ("s3://Up/x", "names no bucket ('Up')"),
        ("gs:/bucket/x", "give gs://BUCKET/…"),
        ("http://host/x", "give gs://BUCKET/…, s3://BUCKET/… or a path on this machine"),
    ],
)
def test_other_addresses_are_one_line(address, said):
    with pytest.raises(ValueError, match=r"^workdir=") as raised:
        files.path_of(address, "workdir")
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(("address", "extra"), [("gs://runs", "gcs"), ("s3://runs", "s3")])
def test_a_missing_package_is_named(address, extra, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=rf"pip install 'isoflop\[{extra}\]'$"):
        files.path_of(address, "workdir")
