"""A path in a bucket, with the methods of pathlib.Path that the project uses."""

import contextlib
import errno
import fnmatch
import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Self, TypeVar

import fsspec
from etils.epath import gpath
from fsspec.asyn import sync

from data.buckets.attempts import TRANSIENT, Changed, Unreachable
from data.buckets.versioned import client

# gcsfs otherwise asks a second service for the kind of each bucket.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
# What gcsfs logs, with tracebacks, it raises too.
logging.getLogger("gcsfs").setLevel(logging.CRITICAL)

AT_ONCE = 32  # requests in flight, of one call
REQUEST_SECONDS = 60  # after which one request has failed
ATTEMPTS = 6  # of one request, with waits of 1, 2, 4, 8 and 16 s; gcsfs has this number fixed
# The options of each file system. A cached listing would miss what other machines write.
OPTIONS: dict[str, dict[str, Any]] = {
    "gs": {"use_listings_cache": False, "requests_timeout": REQUEST_SECONDS},
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 10,
            "read_timeout": REQUEST_SECONDS,
            "retries": {"max_attempts": ATTEMPTS, "mode": "standard"},
        },
    },
}
# The packages whose errors are those of a service that cannot be reached or does not answer.
_SERVICES = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests"}
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Stat:
    """What a bucket says of an object, under the names of os.stat_result and of epath."""

    st_size: int  # bytes
    st_mtime: float  # seconds since 1970, by the clock of the bucket
    st_ino: str  # changes with every write: the generation, or the ETag
    is_directory: bool = False

    @property
    def st_mtime_ns(self) -> int:
        return int(self.st_mtime * 1e9)

    @property
    def length(self) -> int:
        return self.st_size

    @property
    def mtime(self) -> int:
        return int(self.st_mtime)


class BucketPath(gpath.PosixGPath):
    """gs://BUCKET/NAME or s3://BUCKET/NAME.

    A folder exists while an object is in it. Methods raise OSError like those of pathlib.Path:
    FileNotFoundError, PermissionError, and others for a service that does not answer."""

    @property
    def fs(self) -> Any:
        """The file system of fsspec."""
        return filesystem(self._uri_scheme)

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        with answering(self):
            return _object(self.fs, self._path_str) is not None

    def is_dir(self) -> bool:
        with answering(self):
            return _holds_objects(self.fs, self._path_str)

    def is_symlink(self) -> bool:
        return False

    def iterdir(self) -> Iterator[Self]:
        """What is in a folder; nothing for one that does not exist."""
        yield from (path for path, _ in self.entries())

    def entries(self) -> list[tuple[Self, Stat]]:
        """What is in a folder, with what one listing says of it; [] for one that does not exist."""
        return self._listed("ls", {})

    def files_below(self) -> list[tuple[Self, Stat]]:
        """The files of a folder and of all in it, with what one listing says of them."""
        return self._listed("find", {"withdirs": False})

    def _listed(self, how: str, options: dict[str, Any]) -> list[tuple[Self, Stat]]:
        try:
            found = self._call(how, detail=True, **options)
        except FileNotFoundError:
            return []
        infos = found.values() if isinstance(found, dict) else found
        own = self._path_str.partition("://")[2].rstrip("/")
        named = [(info["name"].rstrip("/"), info) for info in infos]
        root = f"{self._uri_scheme}://"
        return [(type(self)(root + name), stat_of(info)) for name, info in named if name != own]

    def glob(self, pattern: str) -> Iterator[Self]:
        found = [self]
        *folders, last = pattern.split("/")
        for part in folders:
            found = [path for each in found for path in each._matching(part)]
        if _is_wild(last):
            yield from (path for each in found for path in each._matching(last))
            return
        named = [path / last for path in found]
        there = at_once(lambda path: path.exists(), named)
        yield from (path for path, exists in zip(named, there, strict=True) if exists)

    def _matching(self, part: str) -> list[Self]:
        if not _is_wild(part):
            return [self / part]
        return [path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, part)]

    def rglob(self, pattern: str) -> Iterator[Self]:
        """Files, not folders, whose name matches; one listing of everything below."""
        yield from (p for p, _ in self.files_below() if fnmatch.fnmatchcase(p.name, pattern))

    def open(self, mode: str = "r", *, encoding: str = "utf-8", **kwargs: Any) -> IO:
        """Opens an object. What is written is uploaded in one request when the file is closed,
        unless an exception ends its `with`. Modes: r, rb, w, wb."""
        if mode in ("w", "wb"):
            return (_Bytes if mode == "wb" else _Text)(self)
        if mode not in ("r", "rb"):
            raise io.UnsupportedOperation(f"mode {mode!r} of {self}: a bucket has no such writes")
        with answering(self):
            raw = self.fs.open(self._path_str, "rb")
        return raw if mode == "rb" else io.TextIOWrapper(raw, encoding, **kwargs)

    def read_bytes(self) -> bytes:
        return self._call("cat_file")

    def read_text(self, encoding: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: bytes) -> int:
        """Replaces the object in one request: a reader sees the old or the new content."""
        self._call("pipe_file", bytes(data))
        return len(data)

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))

    def create_bytes(self, data: bytes) -> bool:
        """Writes a new object. Returns False, and writes nothing, if it exists already."""
        try:
            client(self).put(self._path_str, bytes(data), "")
        except Changed:
            return False
        return True

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder begins with its first object."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._call("rm_file")
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self, missing_ok: bool = False) -> None:
        try:
            self._call("rm", recursive=True)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def stat(self) -> Stat:
        with answering(self):
            info = _object(self.fs, self._path_str)
            if info is None and not _holds_objects(self.fs, self._path_str):
                raise FileNotFoundError
        return stat_of(info or {"type": "directory"})

    def resolve(self, strict: bool = False) -> Self:
        return self

    def absolute(self) -> Self:
        return self

    def expanduser(self) -> Self:
        return self

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with answering(self):
            return getattr(self.fs, name)(self._path_str, *args, **kwargs)


def filesystem(scheme: str) -> Any:
    """The file system of "gs" or "s3". fsspec keeps one a process, also after a fork."""
    for name in ("gs", "gcs", "s3"):  # for epath too, which Orbax uses
        options = OPTIONS["s3" if name == "s3" else "gs"]
        fsspec.config.conf[name] = options | fsspec.config.conf.get(name, {})
    if scheme == "gs":
        return fsspec.filesystem("gcs", finalize_on_close=True)  # as epath has it
    return fsspec.filesystem(scheme)


def stat_of(info: dict[str, Any]) -> Stat:
    """The Stat of what `info` or a listing of fsspec says of an object."""
    time = info.get("mtime") or info.get("LastModified")
    return Stat(
        info.get("size") or 0,
        time.timestamp() if isinstance(time, datetime) else float(time or 0),
        str(info.get("generation") or info.get("ETag") or ""),
        info.get("type") == "directory",
    )


@contextlib.contextmanager
def answering(path: os.PathLike) -> Iterator[None]:
    """Turns what a storage library raises for `path` into an OSError of one line."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "No such object", str(path)) from None
    except FileExistsError:
        raise
    except Exception as error:
        text, package = _line(error), type(error).__module__.partition(".")[0]
        code = getattr(error, "code", None) or getattr(error, "status", None)
        if isinstance(error, PermissionError) or text.startswith("Forbidden"):
            raise PermissionError(errno.EACCES, f"no permission ({text})", str(path)) from error
        named = type(error).__name__
        if str(code) == "401" or "Credential" in named or "Auth" in named:
            raise PermissionError(errno.EACCES, f"no credentials ({text})", str(path)) from error
        if isinstance(error, TimeoutError):
            raise Unreachable(errno.ETIMEDOUT, "no answer in time", str(path)) from error
        if str(code) in map(str, TRANSIENT) or "Connect" in named:
            raise Unreachable(errno.ETIMEDOUT, text or named, str(path)) from error
        if package in _SERVICES or isinstance(error, OSError):
            raise OSError(
                getattr(error, "errno", None) or errno.EIO, text or named, str(path)
            ) from error
        raise


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines)[:300]


def at_once(do: Callable[[_T], _R], over: Sequence[_T] | Iterable[_T]) -> list[_R]:
    """`do` of each, in order, with at most AT_ONCE requests in flight."""
    items = list(over)
    if len(items) < 2:
        return [do(item) for item in items]
    with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
        return list(pool.map(do, items))


def _is_wild(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _object(fs: Any, path: str) -> dict[str, Any] | None:
    """What the bucket says of an object, in one request; None for a folder, and where nothing is.
    The file systems' own `info` also looks for a folder of that name."""
    bucket, _, key = fs._strip_protocol(path).rstrip("/").partition("/")
    try:
        if not key:
            return None
        if "gs" in fs.protocol:
            info = sync(fs.loop, fs._get_object, f"{bucket}/{key}")
            return None if info["type"] == "directory" else info
        answer = fs.call_s3("head_object", Bucket=bucket, Key=key)
        return answer | {"size": answer["ContentLength"], "type": "file"}
    except FileNotFoundError:
        return None


def _holds_objects(fs: Any, path: str) -> bool:
    """Whether a folder, or a bucket, has something in it. One request."""
    own = fs._strip_protocol(path).rstrip("/")
    bucket, _, key = own.partition("/")
    try:
        if "gs" in fs.protocol:
            return any(sync(fs.loop, fs._do_list_objects, own, max_results=1))
        below = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "MaxKeys": 1}
        return bool(fs.call_s3("list_objects_v2", **below).get("Contents"))
    except FileNotFoundError:
        return False


class _Upload:
    """The end of a file that is uploaded when it is closed."""

    path: BucketPath

    def __init__(self, path: BucketPath):
        super().__init__()
        self.path = path

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            super().close()
        self.close()

    def close(self) -> None:
        if not self.closed:
            content = self.getvalue()
            super().close()
            self.path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def __del__(self) -> None:  # a file that nobody closed is not uploaded
        super().close()


class _Bytes(_Upload, io.BytesIO):
    pass


class _Text(_Upload, io.StringIO):
    pass
