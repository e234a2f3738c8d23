"""Tests that a path in a bucket does what a path on this machine does."""

import errno
import os

import pytest

from data.atomic import write_atomic
from data.files import path_of
from scaling import drafts


@pytest.fixture(params=["gs", "s3", "here"])
def folder(request, tmp_path):
    """The same tests run on this machine: they are the control."""
    if request.param == "here":
        return path_of(str(tmp_path / "folder"), "workdir")
    name = {"gs": "shared", "s3": "shared_s3"}[request.param]
    return path_of(request.getfixturevalue(name), "workdir")


def test_files_come_and_go(folder):
    file = folder / "a" / "b.json"
    assert not folder.exists() and not folder.is_dir() and not file.exists()
    file.parent.mkdir(parents=True)
    file.write_bytes(b"{}")
    assert file.exists() and file.is_file() and not file.is_dir()
    assert folder.exists() and folder.is_dir() and not folder.is_file()
    assert file.read_text() == "{}" and file.stat().st_size == 2 and file.stat().st_mtime > 1.7e9
    version = lambda: (file.stat().st_mtime_ns, file.stat().st_ino)  # noqa: E731
    before = version()
    file.write_bytes(b"[1]")
    assert file.read_bytes() == b"[1]" and version() != before
    file.unlink()
    assert not file.exists()
    file.unlink(missing_ok=True)
    looks = [file.read_bytes, file.stat, lambda: file.open("rb")]
    if not str(file).startswith("s3://"):  # which does not say that there was no object
        looks.append(file.unlink)
    for missing in looks:
        with pytest.raises(FileNotFoundError) as raised:
            missing()
        assert str(raised.value.filename) == str(file)


def test_folders_are_listed(folder):
    for name in ("x/config.json", "x/result.json", "y/config.json", "y/z/config.json", "top"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    names = lambda paths: sorted(p.relative_to(folder).as_posix() for p in paths)  # noqa: E731
    assert names(folder.iterdir()) == names(folder.glob("*")) == ["top", "x", "y"]
    assert names(folder.glob("*/config.json")) == ["x/config.json", "y/config.json"]
    assert names(folder.glob("*/*/*.json")) == ["y/z/config.json"]
    assert names(folder.glob("x/r*")) == ["x/result.json"]
    assert names(folder.rglob("config.json")) == sorted(
        ["x/config.json", "y/config.json", "y/z/config.json"]
    )
    assert list(folder.glob("none/*")) == [] == list((folder / "none").rglob("*"))


def test_files_are_written_whole_or_not_at_all(folder):
    folder.mkdir(parents=True)
    with (folder / "a").open("w") as file:
        file.write("é\n")
        assert file.write("b") == 1
    assert (folder / "a").read_text() == "é\nb"
    with (folder / "a").open("r") as file:
        assert list(file) == ["é\n", "b"]
    with (folder / "b").open("wb") as file:
        file.write(bytes(1000))
    with (folder / "b").open("rb") as file:
        assert file.seek(990) == 990 and file.read() == bytes(10)
    write_atomic(folder / "b", b"new")
    assert drafts.write(folder / "c", "old").read_bytes() == b"old"
    assert drafts.create(folder / "d", "first") and not drafts.create(folder / "d", "second")
    assert [(folder / name).read_bytes() for name in "bd"] == [b"new", b"first"]
    assert sorted(path.name for path in folder.iterdir()) == list("abcd")


def test_an_exception_leaves_the_object_as_it_was(shared):
    path = path_of(f"{shared}/a", "workdir")
    path.write_bytes(b"old")
    for mode, content in (("wb", b"half"), ("w", "half")):
        with pytest.raises(ZeroDivisionError), path.open(mode) as file:
            file.write(content)
            raise ZeroDivisionError
    assert path.read_bytes() == b"old"


def test_a_small_look_is_one_request(shared, served):
    """The counter sees what each look costs; a listing of all is the control."""
    folder = path_of(shared, "workdir")
    for number in range(5):
        (folder / str(number)).write_bytes(b"x")

    def requests(do) -> int:
        before = sum(served.counts.values())
        do()
        return sum(served.counts.values()) - before

    assert requests((folder / "1").is_file) == requests((folder / "1").read_bytes) == 1
    assert requests(folder.is_dir) == requests(lambda: list(folder.iterdir())) == 1
    assert requests(lambda: write_atomic(folder / "1", b"y")) == 1
    assert requests((folder / "1").stat) == requests((folder / "1").exists) == 1
    assert requests(lambda: [path.stat() for path in folder.iterdir()]) == 6


def test_a_file_is_created_once_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    file = tmp_path / "a"
    assert drafts.create(file, "first") and not drafts.create(file, "second")
    assert file.read_text() == "first" and list(tmp_path.iterdir()) == [file]
