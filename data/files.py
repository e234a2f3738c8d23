"""Paths of shared folders: on this machine, or in a bucket (gs://…, s3://…)."""

import hashlib
import importlib.util
import os
import pathlib
import re
from collections.abc import Sequence
from pathlib import Path

REMOTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
BUCKETS = ("gs://", "s3://")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}


def to_path(spec: str | os.PathLike) -> Path:
    """The path of `spec`: a pathlib.Path on this machine, a path with the same methods in a bucket.
    A path is returned as it is."""
    if isinstance(spec, pathlib.Path):
        return spec
    text = os.fspath(spec)
    if not text.startswith(BUCKETS):
        return Path(text)
    from data.buckets.path import BucketPath  # slow to import

    return spec if isinstance(spec, BucketPath) else BucketPath(text)


def path_of(spec: str | os.PathLike, key: str) -> Path:
    """The path that a user gave as `key`, with `~` expanded. ValueError, in one line that names
    `key`, for a scheme other than gs:// and s3://, a bucket with an impossible name, and a bucket
    whose package is not installed."""
    text = os.fspath(spec)
    if not (remote := REMOTE.match(text)):
        return local_path(text, key)
    if not text.startswith(BUCKETS):
        scheme = remote[1].lower()
        meant = f"{scheme}://BUCKET/…" if scheme in _PACKAGES else "gs://BUCKET/…, s3://BUCKET/…"
        raise ValueError(
            f"{key}={text!r} is a remote address that isoflop does not read; give {meant} or a "
            "path on this machine"
        )
    scheme, _, rest = text.partition("://")
    bucket = rest.partition("/")[0]
    if not _NAME.fullmatch(bucket):
        raise ValueError(
            f"{key}={text!r} names no bucket ({bucket!r}); write {scheme}://BUCKET/FOLDER, with "
            "3 or more lower-case letters, digits, dots, hyphens"
        )
    package, extra = _PACKAGES[scheme]
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{key}={text!r} needs the package {package}; pip install 'isoflop[{extra}]'"
        )
    return to_path(text)


def local_path(spec: str, key: str) -> Path:
    """The path of `spec`, with `~` expanded. ValueError, naming `key`, for a remote address: for
    files that run as code."""
    if REMOTE.match(spec):
        raise ValueError(f"{key}={spec!r} is a remote address; give a path on this machine")
    try:
        return Path(spec).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{key}={spec!r} has no home folder: {error}; give a full path") from None


def specs_of(given: str | Sequence[str]) -> tuple[str, ...]:
    """The specs of a key that holds one or several."""
    return (given,) if isinstance(given, str) else tuple(given)


def is_remote(path: Path) -> bool:
    """Whether a path is in a bucket. Nothing there can be renamed, locked or appended to."""
    return not isinstance(path, pathlib.Path) and "://" in os.fspath(path)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file on this machine, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
