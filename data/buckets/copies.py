"""Copies on this machine of files in buckets, for what is memory-mapped or read by other libraries.

    MIRROR/gs/BUCKET/…                         a folder of the data's cache, built here or fetched
    MIRROR/files/gs/BUCKET/…/VERSION/NAME      a single file, in one version

A cache folder in a bucket holds objects that are named by the SHA-256 of their content, and
files.json, which lists them and is written last, by the first machine that has built the folder.
So machines that build at once cannot mix their files.
"""

import contextlib
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.files import is_remote, sha256_of
from data.local import sealed, unsealed

INDEX = "files.json"
SHARED = ".shared"  # in a folder here: it is complete in the bucket too
PLACE = "ISOFLOP_MIRROR"
"""The environment variable that names another folder for the copies."""
# What a folder of published weights, or of adapters, consists of.
PUBLISHED = (".json", ".safetensors", ".model", ".txt", ".jinja", ".gguf")
AGAIN = "run this again"
_origins: dict[Path, Path] = {}  # folders here -> the folders in buckets that they mirror


def mirror() -> Path:
    """The folder of the copies: $ISOFLOP_MIRROR, or one among the user's caches."""
    if place := os.environ.get(PLACE):
        return Path(place).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isoflop" / "mirror"


def folder_of(place: Path) -> Path:
    """The folder on this machine that mirrors a folder in a bucket; a folder here as it is."""
    if not is_remote(place):
        return place
    found = mirror().joinpath(*place.parts[1:])
    _origins[found] = place
    return found


def origin_of(folder: Path) -> Path | None:
    """The folder in a bucket that `folder` mirrors; None if it mirrors none."""
    for parent in (folder, *folder.parents) if _origins else ():
        if parent in _origins:
            return _origins[parent].joinpath(*folder.relative_to(parent).parts)
    return None


def pull(folder: Path, last: str) -> bool:
    """Fetches the folder in the bucket that `folder` mirrors, the file `last` at the end. False if
    it is not complete there. ValueError for an object that is missing or damaged."""
    origin = origin_of(folder)
    if origin is None or (listed := _index(origin)) is None:
        return False
    todo = [name for name in listed if name != last]
    for name in (*todo, last):
        if name in listed and not _is_same(folder / name, listed[name]):
            _fetch(origin / listed[name]["object"], folder / name, listed[name], _rebuild(origin))
    (folder / SHARED).touch()
    return True


def is_shared(folder: Path) -> bool:
    """Whether a complete folder is in the bucket that it mirrors, or mirrors none."""
    return origin_of(folder) is None or (folder / SHARED).exists()


def push(folder: Path, last: str) -> None:
    """Uploads a complete folder to the bucket that it mirrors, unless another machine has done so:
    then this folder becomes a copy of that one."""
    origin = origin_of(folder)
    if origin is None or is_shared(folder):
        return
    if _index(origin) is None:
        listed = {path.name: _about(path) for path in sorted(folder.iterdir()) if _belongs(path)}
        there = {path.name for path in origin.iterdir()}
        for name, about in listed.items():
            if about["object"] not in there:
                upload(folder / name, origin / about["object"])
        if (origin / INDEX).create_bytes(sealed({"files": listed})):
            (folder / SHARED).touch()
            return
    pull(folder, last)


def fetched(path: Path) -> Path:
    """A copy on this machine of a file in a bucket, in its present version; a file here as it
    is."""
    if not is_remote(path):
        return path
    about = path.stat()
    version = hashlib.sha256(f"{about.st_ino} {about.st_size}".encode()).hexdigest()[:12]
    target = mirror().joinpath("files", *path.parts[1:-1], version, path.name)
    if not target.exists():
        _fetch(path, target, {"size": about.st_size}, AGAIN)
    return target


def fetched_folder(folder: Path) -> Path:
    """A copy on this machine of a folder of published weights in a bucket, in its present version;
    a folder here as it is."""
    if not is_remote(folder):
        return folder
    entries = {p: s for p, s in folder.entries() if p.suffix in PUBLISHED and not s.is_directory}
    versions = sorted((path.name, about.st_ino, about.st_size) for path, about in entries.items())
    version = hashlib.sha256(repr(versions).encode()).hexdigest()[:12]
    target = mirror().joinpath("files", *folder.parts[1:-1], version, folder.name)
    for path, about in entries.items():
        if not (target / path.name).exists():
            _fetch(path, target / path.name, {"size": about.st_size}, AGAIN)
    return target


@contextlib.contextmanager
def made_here(target: Path) -> Iterator[Path]:
    """Yields a folder to make: `target`, or for one in a bucket a temporary folder with its name,
    which is uploaded at the end, config.json last. Nothing is uploaded after an exception."""
    if not is_remote(target):
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="isoflop-") as temporary:
        yield Path(temporary) / target.name
        upload_folder(Path(temporary) / target.name, target, last=("config.json",))


def upload_folder(folder: Path, target: Path, last: Iterable[str] = ()) -> None:
    """Uploads the files of a folder and of those in it, those named in `last` at the end."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name in last):
        upload(path, target.joinpath(*path.relative_to(folder).parts))


def upload(path: Path, target: Path) -> None:
    """Replaces an object in a bucket by a file of this machine, without reading it whole."""
    from data.buckets.path import answering

    with answering(target):
        target.fs.put_file(str(path), str(target))


def _belongs(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix != ".tmp"


def _about(path: Path) -> dict:
    sha256 = sha256_of(path)
    size = path.stat().st_size
    return {"object": f"{sha256[:16]}-{path.name}", "size": size, "sha256": sha256}


def _is_same(path: Path, about: dict) -> bool:
    return path.is_file() and path.stat().st_size == about["size"] and _about(path) == about


def _index(origin: Path) -> dict[str, dict] | None:
    """The files of a complete folder in a bucket; None if it is not complete."""
    try:
        listed = unsealed((origin / INDEX).read_bytes())["files"]
        for name, about in listed.items():
            _require_plain(name)
            _require_plain(about["object"])
        return listed
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{origin / INDEX} is damaged ({error}); {_rebuild(origin)}") from None


def _require_plain(name: str) -> None:
    """ValueError unless `name` is that of a file, without a folder: anyone may write to a shared
    bucket."""
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file")


def _rebuild(origin: Path) -> str:
    return f"delete {origin} to rebuild it"


def _fetch(path: Path, target: Path, about: dict, remedy: str) -> None:
    """Downloads an object and verifies its size and, where it is known, its SHA-256. `remedy` ends
    the message of an object that is missing or is not what `about` says."""
    from data.buckets.path import answering

    temporary = target.with_name(f".{target.name}.{os.getpid()}{secrets.randbelow(10**9):09}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with answering(path):
            path.fs.get_file(str(path), str(temporary))
        found = _about(temporary)
        if any(found[key] != about[key] for key in ("size", "sha256") if key in about):
            fault = "changed while it was read"
            if "sha256" in about:
                fault = f"is damaged: its content is not what {path.parent / INDEX} says"
            raise ValueError(f"{path} {fault}; {remedy}")
        os.replace(temporary, target)
    except FileNotFoundError as error:
        if error.filename != str(path):
            raise
        raise ValueError(f"{path} is missing; {remedy}") from None
    except OSError as error:
        if error.filename == str(path):
            raise
        raise ValueError(
            f"the copy of {path} cannot be written to {target.parent} ({error.strerror}); set "
            f"{PLACE} to a folder on another disk"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
