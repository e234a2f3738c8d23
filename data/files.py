"""Paths of shared folders: on this machine, or in a bucket (gs://…, s3://…)."""

import os
import pathlib
from pathlib import Path

from etils import epath


def to_path(spec: str | os.PathLike) -> Path:
    """The path of `spec`: a pathlib.Path on this machine, an epath.Path in a bucket, which has the
    same methods. A path is returned as it is."""
    found = epath.Path(spec)
    return found if is_remote(found) else Path(spec)


def is_remote(path: Path) -> bool:
    """Whether a path is in a bucket. Nothing there can be renamed, locked or appended to."""
    return not isinstance(path, pathlib.Path) and "://" in os.fspath(path)
