"""Asks, before anything starts, whether a bucket is there and may be read and written."""

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fsspec.asyn import sync

from data.buckets.path import answering
from data.files import BUCKETS, is_remote, path_of

SECONDS = 20.0  # until a bucket counts as one that cannot be reached
_reached: set[tuple[str, str]] = set()  # (host of the service, bucket) that have answered


def require_named(values: Iterable[tuple[str, Any]]) -> None:
    """`require_readable` for every address of a bucket among (key, value); a value may be a list.
    Each bucket is asked once a process."""
    for key, value in values:
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str) and one.startswith(BUCKETS):
                require_readable(path_of(one, key), key)


def require_readable(path: Path, key: str) -> None:
    """ValueError, in one line, if the bucket of `path`, which `key` names, cannot be listed: it
    does not exist, this process has no credentials or no permission, or nothing answers."""
    if not is_remote(path) or (bucket := _bucket(path)) in _reached:
        return
    try:
        with answering(path):
            _look(path)
    except FileNotFoundError:
        raise ValueError(
            f"{key}={path}: there is no bucket {path.parts[2]}; create it, or correct the name"
        ) from None
    except PermissionError as error:
        raise ValueError(f"{key}={path} cannot be read: {_remedy(path, error)}") from error
    except OSError as error:
        raise ValueError(
            f"{key}={path} cannot be reached ({error.strerror}); check the network{_endpoint(path)}"
        ) from error
    _reached.add(bucket)


def require_writable(path: Path, key: str) -> None:
    """ValueError, in one line, if nothing can be written into a folder in a bucket, which `key`
    names, or deleted there again."""
    require_readable(path, key)
    if not is_remote(path):
        return
    trial = path / f".written-{os.getpid()}{secrets.randbelow(10**9):09}"
    try:
        with answering(path):
            sync(path.fs.loop, path.fs._pipe_file, str(trial), b"", timeout=SECONDS)
            sync(path.fs.loop, path.fs._rm_file, str(trial), timeout=SECONDS)
    except PermissionError as error:
        raise ValueError(f"{key}={path} cannot be written: {_remedy(path, error)}") from error
    except OSError as error:
        raise ValueError(
            f"{key}={path} cannot be written ({error.strerror}); check the network{_endpoint(path)}"
        ) from error


def _look(path: Path) -> None:
    """Lists at most one object. FileNotFoundError if there is no bucket."""
    fs, (bucket, *folders) = path.fs, path.parts[2:]
    if path.parts[1] == "gs":
        place = "/".join((bucket, *folders))
        sync(fs.loop, fs._do_list_objects, place, max_results=1, timeout=SECONDS)
        return
    given = {"Bucket": bucket, "Prefix": "/".join((*folders, "")), "MaxKeys": 1}
    sync(fs.loop, fs._call_s3, "list_objects_v2", timeout=SECONDS, **given)


def _bucket(path: Path) -> tuple[str, str]:
    return _host(path), str(path.parents[len(path.parts) - 4]) if len(path.parts) > 3 else str(path)


def _host(path: Path) -> str:
    """The address of the service, where another than the usual one is set."""
    names = ("STORAGE_EMULATOR_HOST",) if path.parts[1] == "gs" else _S3_HOSTS
    return next((f"{name}={os.environ[name]}" for name in names if name in os.environ), "")


_S3_HOSTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def _endpoint(path: Path) -> str:
    return f" and ${host}" if (host := _host(path)) else " and that the service is up"


def _remedy(path: Path, error: OSError) -> str:
    anonymous = str(error.strerror).startswith("no credentials")
    if path.parts[1] == "gs":
        remedy = (
            "run gcloud auth application-default login"
            if anonymous
            else "give this account the role roles/storage.objectUser on the bucket"
        )
    else:
        remedy = (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run aws configure"
            if anonymous
            else "allow s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject"
        )
    return f"{error.strerror}; {remedy}"
