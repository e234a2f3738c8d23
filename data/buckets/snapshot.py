"""A folder of runs in a bucket as it is now: one listing, and its small files, read at once."""

import email.utils
import io
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any, ClassVar, Self

from fsspec.asyn import sync

from data.buckets.path import BucketPath, Stat, answering, at_once, stat_of
from data.files import is_remote

SMALL = ("config.json", "result.json", "sweep.json", "search.json", "lock", "ledger.json")
"""The files that are read with the listing: of each trial, a few kB."""
LISTED = (*SMALL, "metrics.jsonl", "law.json", "points.csv", "ranking.json", "ranking.csv")
MOST_BYTES = 4 << 20  # of a file that counts as small


@dataclass
class _Held:
    """What a listing says: files by their address, and the folders that they are in."""

    root: str
    now: float  # Unix time of the listing, by the clock of the bucket
    stats: dict[str, Stat]
    contents: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self):
        self.inside: dict[str, set[str]] = {self.root: set()}
        for name in self.stats:
            self.add(name)

    def add(self, name: str) -> None:
        """Enters a file into its folder, and that one into the next, up to the root."""
        while name != self.root and name.startswith(self.root):
            folder = name.rpartition("/")[0]
            self.inside.setdefault(folder, set()).add(name)
            name = folder


class _Snapshot(BucketPath):
    """A path in the listed folder. Looks and small reads make no request; other reads, and all
    writes, are those of the bucket."""

    held: ClassVar[_Held]

    @property
    def _listed_here(self) -> bool:
        """Whether the listing would have this path, if it existed."""
        own = self._path_str
        return own == self.held.root or own.startswith(f"{self.held.root}/")

    def is_file(self) -> bool:
        return self._path_str in self.held.stats if self._listed_here else super().is_file()

    def is_dir(self) -> bool:
        return self._path_str in self.held.inside if self._listed_here else super().is_dir()

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def stat(self) -> Stat:
        known = self.held.stats.get(self._path_str)
        return known or (Stat(0, 0.0, "", True) if self.is_dir() else super().stat())

    def entries(self) -> list[tuple[Self, Stat]]:
        if not self._listed_here:
            return super().entries()
        names = sorted(self.held.inside.get(self._path_str, ()))
        return [((path := type(self)(name)), path.stat()) for name in names]

    def files_below(self) -> list[tuple[Self, Stat]]:
        if not self._listed_here:
            return super().files_below()
        inside = f"{self._path_str}/"
        return [(type(self)(n), s) for n, s in self.held.stats.items() if n.startswith(inside)]

    def read_bytes(self) -> bytes:
        name = self._path_str
        if name not in self.held.contents:
            if self._listed_here and name not in self.held.stats and self.name in LISTED:
                raise FileNotFoundError(2, "No such object", name)
            return super().read_bytes()
        return self.held.contents[name]

    def open(self, mode: str = "r", **kwargs: Any) -> IO:
        if mode == "rb" and self._path_str in self.held.contents:
            return io.BytesIO(self.held.contents[self._path_str])
        return super().open(mode, **kwargs)

    def write_bytes(self, data: bytes) -> int:
        written = super().write_bytes(data)
        if self._listed_here:
            self.held.stats[self._path_str] = Stat(len(data), self.held.now, "written")
            self.held.contents[self._path_str] = bytes(data)
            self.held.add(self._path_str)
        return written

    def unlink(self, missing_ok: bool = False) -> None:
        super().unlink(missing_ok)
        name = self._path_str
        for known in (self.held.stats, self.held.contents):
            known.pop(name, None)
        self.held.inside.get(name.rpartition("/")[0], set()).discard(name)

    def __reduce__(self) -> tuple:
        return BucketPath, (self._path_str,)


def snapshot(folder: Path, earlier: Path | None = None) -> Path:
    """`folder` as it is now; a folder on this machine as it is. What has not changed since an
    `earlier` snapshot is not read again. In a store of Google, only the files LISTED are listed."""
    if not is_remote(folder):
        return folder
    root = str(folder)
    now, stats = _listing(folder)
    held = _Held(root, now, stats)
    before: _Held | None = getattr(earlier, "held", None)
    wanted = [name for name, about in stats.items() if _is_small(name, about)]
    if before:
        same = [n for n in wanted if n in before.contents and before.stats[n] == stats[n]]
        held.contents |= {name: before.contents[name] for name in same}
        wanted = [name for name in wanted if name not in held.contents]
    held.contents |= dict(zip(wanted, _read(wanted), strict=True))
    for name in [name for name, content in held.contents.items() if content is None]:
        del held.contents[name], held.stats[name]  # deleted since the listing
    return type("Snapshot", (_Snapshot,), {"held": held})(root)


def _is_small(name: str, about: Stat) -> bool:
    return name.rpartition("/")[2] in SMALL and about.st_size <= MOST_BYTES


def _read(names: Iterable[str]) -> list[bytes | None]:
    """The contents of objects, None for one that is gone."""

    def read(name: str) -> bytes | None:
        try:
            return BucketPath(name).read_bytes()
        except FileNotFoundError:
            return None

    return at_once(read, names)


def _listing(folder: Path) -> tuple[float, dict[str, Stat]]:
    """(the time by the clock of the bucket, what it says of each file in a folder)."""
    with answering(folder):
        if folder.parts[1] == "gs":
            return _of_google(folder)
        answer = folder.fs.call_s3("list_objects_v2", Bucket=folder.parts[2], MaxKeys=1)
        now = _seconds(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
        found = BucketPath(str(folder)).files_below()
    return now, {str(path): about for path, about in found}


def _of_google(folder: Path) -> tuple[float, dict[str, Stat]]:
    fs, bucket, inside = folder.fs, folder.parts[2], "/".join(folder.parts[3:])
    prefix = f"{inside}/" if inside else ""
    query = {"prefix": prefix, "matchGlob": f"{prefix}**{{{','.join(LISTED)}}}"}
    if any(sign in prefix for sign in "*?[]{}\\"):
        del query["matchGlob"]
    query |= {"fields": "items(name,size,updated,generation),nextPageToken", "maxResults": 1000}
    stats, page, now = {}, "", 0.0
    while True:
        given = query | ({"pageToken": page} if page else {})
        headers, content = sync(fs.loop, fs._call, "GET", "b/{}/o", bucket, **given)
        now, answer = _seconds(headers.get("Date")), json.loads(content)
        for item in answer.get("items", ()):
            if item["name"].rpartition("/")[2] not in LISTED:
                continue  # an emulator does not know matchGlob
            about = item | {"size": int(item["size"]), "mtime": _moment(item["updated"])}
            stats[f"gs://{bucket}/{item['name']}"] = stat_of(about)
        if not (page := answer.get("nextPageToken", "")):
            return now, stats


def _seconds(date: str | None) -> float:
    return email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()


def _moment(updated: str) -> float:
    return datetime.fromisoformat(updated).timestamp()
