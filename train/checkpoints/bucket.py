"""Checkpoints in a bucket: FOLDER/STEP/NAME/ holds Orbax's files, FOLDER/STEP/manifest.json the
manifest.

NAME begins with the token of the process that saves and is new for each save, so two never write
one object. The manifest holds that name. It is only created, never replaced: the first manifest
wins. It also holds the size and the checksum that the store has for each object, so that one
listing shows objects that are missing, truncated or swapped.

Where one process trains, Orbax writes to this machine's temporary folder, and each file becomes an
object: some ten requests, where Orbax makes eighty. Several processes, and states above STAGED,
write to the bucket directly; S3 has no such way here.

What is removed was listed before `lease.confirm`: nothing that the next owner writes is in that
listing. Names that owners share, such as the manifest's, are removed in the listed version only.
"""

import contextlib
import errno
import itertools
import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from data.buckets.attempts import Changed, Listed
from data.buckets.lease import Lease
from data.buckets.scratch import scratch
from data.buckets.versioned import client
from data.files import is_remote, to_path
from train.checkpoints import disk
from train.checkpoints.manifest import MANIFEST, Spoiled, fault, is_step, sealed
from train.parallel import processes

STAGED = 1 << 30  # bytes of a state that is written to this machine first
_ASIDE = "damaged"  # begins the name of the manifest of a damaged checkpoint
_AT_ONCE = 8  # objects

Listing = dict[str, Listed]


def finished(folder: Path) -> list[Path]:
    """The finished checkpoints of a run, newest first."""
    return _finished(folder, client(folder).listed(os.fspath(folder)))


def _finished(folder: Path, listing: Listing) -> list[Path]:
    ends = [name.split("/") for name in listing]
    steps = [int(e[0]) for e in ends if len(e) == 2 and e[1] == MANIFEST and is_step(e[0])]
    return [folder / str(step) for step in sorted(steps, reverse=True)]


def stages(path: Path, size: int) -> bool:
    """Whether a state of `size` bytes is written to this machine first. ValueError where it cannot
    be saved to this bucket."""
    several = processes.count() > 1
    if os.fspath(path).startswith("gs://"):
        return not several and size <= STAGED
    if several:
        raise ValueError(
            f"checkpoints of several processes cannot be saved to {path}; use a --workdir in gs:// "
            "or on a file system that all hosts share, or --processes=1"
        )
    return True


def make_room(path: Path, size: int, lease: Lease) -> bool:
    """Whether this step is already saved. If not, checks that this machine has room for `size`
    bytes if they are written there first."""
    if _saved(path, lease):
        return True
    if stages(path, size) and shutil.disk_usage(tempfile.gettempdir()).free < size:
        raise OSError(errno.ENOSPC, "No space left on device", tempfile.gettempdir())
    return False


def _saved(path: Path, lease: Lease) -> bool:
    """Whether this step has a good checkpoint. One that is damaged is set aside: the manifest of an
    earlier owner may arrive late, after its objects were removed."""
    try:
        read_manifest(path)
    except FileNotFoundError:
        return False
    if _damage(path) is None:
        return True
    set_aside([path], lease)
    return False


def commit(
    path: Path,
    data: Path,
    name: str,
    meta: dict,
    lease: Lease,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Makes what Orbax wrote to `data`, on this machine or the folder `name` in the bucket, the
    checkpoint `path`. `before` is called when all but the manifest is there. LostLock if another
    process has the folder."""
    store, where, staged, hashes = client(path), path / name, not is_remote(data), {}
    if staged:
        names = disk.names(data)
        hashes = disk.hashes(data, names)
        _upload(data, where, names, lease)
    if not processes.is_first():
        return
    listing = store.listed(os.fspath(where))
    objects = {name: [found.size, found.checksum] for name, found in sorted(listing.items())}
    if staged:
        _require_sizes(data, listing, names)
    content = sealed(hashes, meta, data=name, objects=objects)
    before()
    while True:
        lease.confirm()
        try:
            store.put(os.fspath(path / MANIFEST), content, "")
            return
        except Changed:
            lease.confirm()
            if _saved(path, lease):  # by an earlier owner, whose last write came late
                return


def _upload(data: Path, where: Path, names: Sequence[str], lease: Lease) -> None:
    store = client(where)

    def one(name: str) -> None:
        lease.confirm()
        with open(data / name, "rb") as file:
            store.put(os.fspath(where / name), file if (data / name).stat().st_size else b"")

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(one, names))


def _require_sizes(data: Path, listing: Listing, names: Sequence[str]) -> None:
    for name in names:
        size = (data / name).stat().st_size
        if name not in listing or listing[name].size != size:
            raise OSError(errno.EIO, f"{name} of {size} bytes did not reach the bucket", str(data))


def remove_unfinished(folder: Path, lease: Lease) -> list[str]:
    """Removes what killed or failed saves left, and returns the names of their steps. LostLock,
    and nothing is removed, if another process has the folder: its saves look unfinished too."""
    store, listing = client(folder), client(folder).listed(os.fspath(folder))
    kept = _kept(folder, listing)
    left = []
    for name in listing:
        step, _, rest = name.partition("/")
        if is_step(step) and "/" in rest and not name.startswith(kept):
            left.append(name)
    if left:
        lease.confirm()
        _remove(store, [os.fspath(folder / name) for name in left])
    whole = {path.name for path in _finished(folder, listing)}
    return sorted({name.partition("/")[0] for name in left} - whole, key=int)


def _kept(folder: Path, listing: Listing) -> tuple[str, ...]:
    """How the names of objects begin that a manifest lists. Where a step has several folders of
    data, its manifests are read; one that cannot be parsed keeps all of them."""
    split = [name.split("/") for name in listing]
    folders = Counter(step for step, _ in {(s[0], s[1]) for s in split if len(s) > 2})
    kept = set()
    for step, rest in (parts for parts in split if len(parts) == 2):
        if rest == MANIFEST or rest.startswith(_ASIDE):
            name = _data(folder / step, rest) if folders[step] > 1 else ""
            kept.add(f"{step}/{name}/" if name else f"{step}/")
    return tuple(kept)


def _data(path: Path, manifest: str) -> str:
    """The name of the data's folder in a manifest; "" if it cannot be parsed, or is gone."""
    try:
        return str(json.loads(read_manifest(path, manifest))["data"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def remove(paths: Sequence[Path], lease: Lease) -> None:
    """Removes checkpoints, the manifest of each first."""
    for path in paths:
        store = client(path)
        listing = store.listed(os.fspath(path))
        lease.confirm()
        try:
            if MANIFEST in listing:
                store.remove(os.fspath(path / MANIFEST), listing[MANIFEST].version)
        except Changed:
            continue  # it is another checkpoint now
        for name in [name for name in listing if "/" not in name and name != MANIFEST]:
            with contextlib.suppress(Changed):
                store.remove(os.fspath(path / name), listing[name].version)
        _remove(store, [os.fspath(path / name) for name in listing if "/" in name])


def _remove(store: Any, urls: Sequence[str]) -> None:
    """Removes objects of data, whose names no two saves share."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(store.remove, urls))


def set_aside(paths: Sequence[Path], lease: Lease) -> None:
    """Gives the manifests of damaged checkpoints another name, so that their steps can be saved
    again; their objects stay."""
    for path in paths:
        store = client(path)
        try:
            content, version = store.get(os.fspath(path / MANIFEST))
        except FileNotFoundError:
            lease.confirm()
            continue
        lease.confirm()
        for number in itertools.count():
            with contextlib.suppress(Changed):
                store.put(os.fspath(path / f"{_ASIDE}{number or ''}.json"), content, "")
                break
        with contextlib.suppress(Changed):
            store.remove(os.fspath(path / MANIFEST), version)


def read_manifest(path: Path, name: str = MANIFEST) -> bytes:
    """The manifest of a checkpoint; FileNotFoundError if there is none."""
    return client(path).get(os.fspath(path / name))[0]


def damage_of_share(path: Path) -> str | None:
    """What one listing shows to be wrong with a checkpoint; None if nothing is. `opened` also
    hashes what it reads."""
    return _damage(path) if processes.is_first() else None


def _damage(path: Path) -> str | None:
    try:
        content = read_manifest(path)
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    if found := fault(content, path.name):
        return found
    body = json.loads(content)
    if impossible := _impossible(body):
        return impossible
    objects = body["objects"]
    listing = client(path).listed(os.fspath(path / body["data"]))
    if extra := [name for name in listing if name not in objects]:
        return f"{extra[0]} does not belong to it"
    for name, (size, checksum) in objects.items():
        if name not in listing:
            return f"{name} is missing"
        if listing[name].size != size:
            return f"{name} has {listing[name].size} bytes, not {size}"
        if listing[name].checksum != checksum:
            return f"{name} does not match its checksum"
    return None


def _impossible(body: Mapping[str, Any]) -> str | None:
    """What no save writes into a manifest, such as names outside of the checkpoint's folder."""
    objects, data = body.get("objects"), body.get("data")
    if not isinstance(objects, dict) or not isinstance(data, str):
        return f"{MANIFEST} names no objects"
    for about in objects.values():
        if not isinstance(about, list) or [type(value) for value in about] != [int, str]:
            return f"{MANIFEST} names no size and checksum of an object"
    for name in (data, *objects, *body["files"]):
        if not _is_inside(name) or (name is data and "/" in name):
            return f"{MANIFEST} names {name!r}, which is outside of the checkpoint"
    return None


def _is_inside(name: str) -> bool:
    """Whether a relative name stays in its folder."""
    parts = name.split("/")
    return not PurePosixPath(name).is_absolute() and not {"", ".", ".."}.intersection(parts)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The folder with the files of a checkpoint, for as long as they are read: a copy on this
    machine, whose hashes are checked, or for a large state and several processes the bucket's.
    Spoiled if an object is missing or does not match its hash."""
    body = json.loads(read_manifest(path))
    if impossible := _impossible(body):
        raise Spoiled(errno.EIO, impossible, os.fspath(path))
    where, objects = path / body["data"], body["objects"]
    if not stages(path, sum(size for size, _ in objects.values())):
        yield where
        return
    store = client(path)
    home = scratch()
    try:
        data = home / path.name

        def one(name: str) -> None:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                (data / name).write_bytes(store.get(os.fspath(where / name))[0])
            except FileNotFoundError as error:
                raise Spoiled(errno.EIO, "the object is missing", str(where / name)) from error

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(one, objects))
        actual = disk.hashes(data, list(body["files"]))
        for name, stated in body["files"].items():
            if actual[name] != stated:
                raise Spoiled(errno.EIO, "the object does not match its hash", str(where / name))
        yield data
    finally:
        shutil.rmtree(home, ignore_errors=True)


def new_name(lease: Lease) -> str:
    """A name for the data of one save, with the token of its owner."""
    return f"{lease.token or 'none'}-{secrets.token_hex(2)}"


def folder_for(path: Path, size: int, name: str) -> Path:
    """Where Orbax writes the state of the checkpoint `path`: a new folder of this machine, or one
    in the bucket."""
    if stages(path, size):
        return scratch() / path.name
    return to_path(os.fspath(path / name))
