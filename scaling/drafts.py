"""Reads JSON objects and writes files atomically."""

import errno
import json
import os
import pathlib
import secrets
from pathlib import Path, PurePath
from typing import Any


def as_path(place: str | PurePath) -> Path:
    """The path of a name on this machine; a path, which may be in a bucket, as it is."""
    if isinstance(place, str) and "://" in place:
        raise TypeError(f"{place} is a name in a bucket; give its path, of data.files.to_path")
    return Path(place) if isinstance(place, str) else place


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError, in one line, if the file contains anything
    else, and OSError if it cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path} is not valid JSON (it is nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def write(path: Path, content: str | bytes) -> Path:
    """Replaces a file atomically: a reader sees the old or the new content, never a part of it."""
    if _is_remote(path):  # one request, which replaces the whole object
        path.write_bytes(_encoded(content))
        return path
    draft = draft_of(path, content)
    os.replace(draft, path)
    return path


def create(path: Path, content: str | bytes) -> bool:
    """Writes a new file. Returns False if the file exists already."""
    if _is_remote(path):
        return path.create_bytes(_encoded(content))
    draft = draft_of(path, content)
    try:
        os.link(draft, path)  # fails if the name exists; a rename would replace the file
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP):
            raise
        return _create_without_links(path, content)
    finally:
        draft.unlink()
    return True


def _create_without_links(path: Path, content: str | bytes) -> bool:
    """`create` on a file system without hard links, where a reader may see a part of the file."""
    try:
        with open(path, "xb") as file:
            file.write(_encoded(content))
    except FileExistsError:
        return False
    return True


def draft_of(path: Path, content: str | bytes) -> Path:
    """Writes the content to a temporary file in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several hosts, or threads of one, can have the same number.
    draft = path.with_name(f".{path.name}.{os.getpid()}{secrets.randbelow(10**9):09}")
    draft.write_bytes(_encoded(content))
    return draft


def _encoded(content: str | bytes) -> bytes:
    return content.encode(errors="backslashreplace") if isinstance(content, str) else content


def _is_remote(path: Path) -> bool:
    """Whether a path is in a bucket, where nothing is renamed or linked."""
    return not isinstance(path, pathlib.Path)
