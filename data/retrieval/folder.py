"""The folder of an index: files with their hashes in a manifest, which is written last.

    INDEX/manifest.json    kind, settings, counts, and the SHA-256 of every other file
          passages.jsonl   a passage a line: its source, where it begins, its text
          vectors-00000.npy, keys-00000.npy …   what its kind needs

While an index is built, building.json names its settings. A build that was killed goes on where it
stopped; a folder without a manifest is no index yet. No file holds pickled objects. An index in a
bucket is built here and uploaded when it is complete.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.atomic import lock, write_atomic
from data.buckets import copies
from data.files import sha256_of
from data.local import sealed, unsealed

FORMAT = 1
MANIFEST, BUILDING, LOCK = "manifest.json", "building.json", ".lock"
KINDS = ("bm25", "dense", "knn")


@dataclass(frozen=True)
class Index:
    """An index whose files have the hashes of its manifest. `about` is the manifest."""

    folder: Path
    about: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return self.about["kind"]

    def array(self, name: str) -> np.ndarray:
        """An array of the index, mapped from its file."""
        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)

    def named(self, prefix: str) -> list[str]:
        """The files whose names begin with `prefix`, in order."""
        return sorted(name for name in self.about["files"] if name.startswith(prefix))

    @property
    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(one["bytes"] for one in self.about["files"].values())


def here(place: Path) -> Path:
    """The folder on this machine of an index: of one in a bucket, a copy."""
    found = copies.folder_of(place)
    copies.pull(found, MANIFEST)
    return found


def read(folder: Path, key: str = "retrieve") -> Index:
    """The index in a folder, which `key` names in errors. FileNotFoundError or ValueError, in one
    line, for a folder without an index, one of another version, and a file that is missing or
    damaged."""
    path = folder / MANIFEST
    if not path.is_file():
        part = (folder / BUILDING).is_file()
        why = "is not finished; run its isoflop index again" if part else "holds no index"
        remedy = "" if part else "; make one with isoflop index --out=INDEX"
        raise FileNotFoundError(f"{key}={folder} {why}{remedy}")
    rebuild = f"delete {folder} and build it again"
    try:
        about = unsealed(path.read_bytes())
        version, kind, files = about["format"], about["kind"], dict(about["files"])
        if other := [name for name in files if Path(name).name != name]:
            raise ValueError(f"{other[0]!r} is not a file name")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{key}={folder}: {MANIFEST} is damaged ({error}); {rebuild}") from None
    if version != FORMAT or kind not in KINDS:
        raise ValueError(
            f"{key}={folder} has format {version} and kind {kind!r}, and this version of isoflop "
            f"reads format {FORMAT} of the kinds {', '.join(KINDS)}; {rebuild}"
        )
    for name, one in files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != one["bytes"]:
            what = "is cut short or too long" if file.is_file() else "is missing"
            raise ValueError(f"{key}={folder}: {name} {what}; {rebuild}")
        if sha256_of(file) != one["sha256"]:
            raise ValueError(f"{key}={folder}: {name} is damaged, its hash differs; {rebuild}")
    return Index(folder, about)


@contextlib.contextmanager
def building(folder: Path, settings: Mapping[str, Any], key: str = "out") -> Iterator[bool]:
    """Yields whether an index with these settings must be built in a folder; False if it is there.

    ValueError, in one line that names `key`, for a folder with other files or another index, and
    while another process builds it."""
    about = {"format": FORMAT, "settings": dict(settings)}
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{key}={folder} is a file; name a folder")
    if (folder / MANIFEST).is_file():
        if read(folder, key).about["settings"] != about["settings"]:
            raise ValueError(f"{key}={folder} holds another index; delete it or name another place")
        yield False
        return
    _begin(folder, about, key)
    with open(folder / LOCK, "w") as file:
        if lock(file) is False:
            raise ValueError(f"{key}={folder} is being built by another process; wait for it")
        yield True


def _begin(folder: Path, about: dict[str, Any], key: str) -> None:
    """Makes the folder of an index, or goes on with one that was begun."""
    started = folder / BUILDING
    if not started.is_file():
        if folder.is_dir() and any(path.name != LOCK for path in folder.iterdir()):
            raise ValueError(f"{key}={folder} holds other files; name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(started, sealed(about))
        return
    try:
        before = unsealed(started.read_bytes())
    except ValueError:
        before = {}
    if before.get("settings") != about["settings"]:
        raise ValueError(
            f"{key}={folder} holds a part of another index; delete it or name another place"
        )


def finish(folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> Index:
    """Writes the manifest, with the hashes of all files in the folder; it is an index now."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.name not in (BUILDING, LOCK) and path.suffix != ".tmp"
    }
    manifest = {"format": FORMAT, **about, "settings": dict(settings), "files": files}
    write_atomic(folder / MANIFEST, sealed(manifest))
    (folder / BUILDING).unlink(missing_ok=True)
    copies.push(folder, MANIFEST)
    return Index(folder, manifest)


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an array in one step."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_atomic(path, content.getvalue())


def shard_name(prefix: str, number: int) -> str:
    """The name of a file of arrays: keys-00012.npy."""
    return f"{prefix}-{number:05}.npy"


def shards(index: Index, prefixes: Sequence[str]) -> Iterator[tuple[np.ndarray, ...]]:
    """The arrays of each shard, one for each prefix."""
    for names in zip(*(index.named(f"{prefix}-") for prefix in prefixes), strict=True):
        yield tuple(index.array(name) for name in names)
