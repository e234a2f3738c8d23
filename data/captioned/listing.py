"""Reads lists of captioned files: a folder with captions.jsonl, or a .jsonl file.

    shapes/captions.jsonl     {"file": "000000.png", "caption": "a small red circle"} in each line
    shapes/000000.png         the file, relative to the folder of the list

A file may be listed more than once, with other captions.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data.files import is_remote, path_of
from data.sources.compression import naming_damage, open_file
from data.sources.formats import json_lines

LIST = "captions.jsonl"


class Captioned(NamedTuple):
    """A file with its caption; `where` says in which line of which list it is."""

    where: str
    name: str  # as the list spells it
    path: Path
    caption: str


def files(specs: Sequence[str], key: str, file_key: str, caption_key: str) -> list[Captioned]:
    """The captioned files of `specs`, which the config key `key` holds, in order. FileNotFoundError
    or ValueError, with the line, for a list that is missing or damaged, a file outside of its
    folder, and an empty caption."""
    found: list[Captioned] = []
    for spec in specs:
        before, at = len(found), _list_of(spec, key)
        with naming_damage(at), open_file(at) as stream:
            for where, row in json_lines(stream, at):
                name = _text(row, file_key, "data.file_key", where)
                caption = _text(row, caption_key, "data.caption_key", where)
                found.append(Captioned(where, name, _inside(at.parent, name, where), caption))
        if len(found) == before:
            raise ValueError(f"{key}={spec!r} lists no files; put one on each line of {at}")
    return found


def identity(captioned: Sequence[Captioned]) -> list:
    """What changes when files or captions do: names, captions, sizes and times. Opens no file."""
    return [[one.name, one.caption, *_stat(one.path)] for one in captioned]


def _stat(path: Path) -> list[int]:
    """Size and time of a file, in a bucket its version in place of the time; [] without one, which
    is found when it is read."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_ino if is_remote(path) else stat.st_mtime_ns]


def _list_of(spec: str, key: str) -> Path:
    path = path_of(spec, key)
    at = path / LIST if path.is_dir() else path
    if not at.is_file():
        raise FileNotFoundError(
            f"{key}={spec!r}: {at} does not exist; name a folder with {LIST}, or a .jsonl file "
            "(isoflop synthesise writes one)"
        )
    return at


def _inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file below `folder`; ValueError for any other."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\0" in name or "://" in name:
        raise ValueError(f"{where}: the file {name!r} is not below {folder}; give a relative path")
    return folder / name


def _text(row: Any, name: str, key: str, where: str) -> str:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str) or not value.strip():
        found = ", ".join(sorted(map(str, row))) if isinstance(row, dict) else ""
        raise ValueError(f"{where} has no text under {key}={name!r}; keys: {found or 'none'}")
    return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
