"""The client of a bucket, for objects that several processes write: created once, or replaced in a
known version.

The bucket decides by a precondition of the request, so the clocks of machines do not matter.
"""

import os
from pathlib import Path
from typing import Any

_EXTRAS = {"gs": "gcs", "s3": "s3"}
_clients: dict[tuple, Any] = {}


def client(path: Path | str) -> Any:
    """The client of a path's bucket, with `get`, `look`, `put`, `remove` and `listed`. One for each
    process. ModuleNotFoundError names the extra that is missing."""
    scheme = os.fspath(path).partition("://")[0]
    if scheme not in _EXTRAS:
        raise ValueError(f"{path} is in no bucket that isoflop can write to; use gs://… or s3://…")
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
