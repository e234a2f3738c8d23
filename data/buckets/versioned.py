"""Files and objects that several processes write: created once, or replaced in a known version.

A bucket decides by a precondition of the request, so the decision is the store's and clocks do not
matter. On this machine, links and flock decide.
"""

import fcntl
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any

from data.atomic import write_atomic
from data.buckets.attempts import WITHIN, Changed
from data.files import is_remote

_EXTRAS = {"gs": "gcs", "s3": "s3"}
_clients: dict[tuple, Any] = {}


def client(path: Path | str) -> Any:
    """The store of a path in a bucket, which has `get`, `look`, `put`, `remove` and `listed`. One
    for each process. ModuleNotFoundError, with the remedy, without the packages it needs."""
    scheme = os.fspath(path).partition("://")[0]
    if scheme not in _EXTRAS:
        raise ValueError(f"{path} is in no bucket that can be locked; use gs://… or s3://…")
    settings = ("STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
    key = (scheme, os.getpid(), *map(os.environ.get, settings))
    if key not in _clients:
        try:
            if scheme == "gs":
                from data.buckets.gcs import Gcs as Store
            else:
                from data.buckets.s3 import S3 as Store
            _clients[key] = Store()
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{path} needs the package {error.name}: pip install 'isoflop[{_EXTRAS[scheme]}]'"
            ) from error
    return _clients[key]


def write_new(path: Path, content: bytes, within: float = WITHIN) -> str:
    """Creates a file or object; its version. Changed if it is there already. The content appears
    as a whole."""
    if is_remote(path):
        return client(path).put(os.fspath(path), content, "", within)
    temporary = path.with_name(f"{path.name}.{os.getpid()}{secrets.randbelow(10**9):09}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    except FileExistsError:
        raise Changed(str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
    return _version(content)


def read_version(path: Path, within: float = WITHIN) -> tuple[bytes, str]:
    """(content, version) of a file or object. FileNotFoundError if there is none."""
    if is_remote(path):
        return client(path).get(os.fspath(path), within)
    content = path.read_bytes()
    return content, _version(content)


def replace_version(path: Path, content: bytes, version: str, within: float = WITHIN) -> str:
    """Replaces a file or object that is in `version`; its new version. Changed if it is in
    another, or not there."""
    if is_remote(path):
        return client(path).put(os.fspath(path), content, version, within)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not path.exists() or _version(path.read_bytes()) != version:
            raise Changed(str(path))
        write_atomic(path, content)
    finally:
        os.close(folder)
    return _version(content)


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
