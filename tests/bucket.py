"""A bucket for tests: gcp-storage-emulator in memory, with what it lacks and a real store has.

It enforces generation preconditions, one request at a time, answers ranges from the end of an
object, can fail (503, 429), be slow and lose answers, and counts the requests. gcsfs,
google-cloud-storage and tensorstore find it by their environment variables.

    python -m tests.bucket --name=bucket --port=9000      # prints the variables and serves
"""

import argparse
import collections
import contextlib
import io
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler, _read_raw_data
from gcp_storage_emulator.storage import Storage

_OBJECT = re.compile(r"(?:/upload|/download)?(?:/storage/v1)?/b/([^/]+)/o(?:/(.+))?")
_TARGET = re.compile(r"(.+)/(?:copyTo|rewriteTo)/b/([^/]+)/o/(.+)")


@dataclass
class Faults:
    """Shares (0 to 1) of requests that go wrong, drawn from `seed`."""

    unavailable: float = 0.0  # answered by 503
    too_many: float = 0.0  # answered by 429
    slow: float = 0.0  # answered after `seconds`
    lost: float = 0.0  # done, but answered by 503
    seconds: float = 0.2
    seed: int = 0
    skew: float = 0.0  # seconds by which the server's clock, in the header Date, is ahead
    lawless: bool = False  # preconditions are ignored, as the emulator alone does


@dataclass
class Request:
    """One request: its kind ("insert", "get", "read", "list", "delete", …), bucket, object."""

    kind: str
    bucket: str = ""
    name: str = ""
    generation: int | None = None  # ifGenerationMatch
    other_generation: int | None = None  # ifGenerationNotMatch


@dataclass
class Bucket:
    """A running bucket. `before` is called with each request, and what it raises is a 503."""

    url: str  # gs://NAME
    host: str  # http://127.0.0.1:PORT
    storage: Storage
    faults: Faults = field(default_factory=Faults)
    counts: collections.Counter = field(default_factory=collections.Counter)
    before: Callable[[Request], None] = lambda request: None
    late: Callable[[Request], float] = lambda request: 0.0  # seconds until a request is looked at

    def __post_init__(self):
        self.name = self.url.removeprefix("gs://")
        self.lock, self.random = threading.RLock(), random.Random(self.faults.seed)
        self.uploads: dict[str, Request] = {}  # of resumable uploads, by id
        self.writes: list[tuple[str, str]] = []  # (kind, object) of what changed the bucket

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to find the bucket."""
        return {
            "STORAGE_EMULATOR_HOST": self.host,
            "TENSORSTORE_GCS_HTTP_URL": self.host,
            # gcsfs would ask Google what kind of bucket it is.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def names(self, prefix: str = "") -> list[str]:
        """The names of its objects."""
        with self.lock:
            return sorted(
                n for n in self.storage.objects.get(self.name, {}) if n.startswith(prefix)
            )

    def read(self, name: str) -> bytes:
        """The content of an object, without a request."""
        with self.lock:
            return self.storage.get_file(self.name, name)

    def generation(self, bucket: str, name: str) -> int:
        """The generation of an object; 0 if there is none."""
        found = self.storage.objects.get(bucket, {}).get(name)
        return int(found["generation"]) if found else 0

    def draw(self) -> tuple[int | None, bool, float]:
        """(the status of a request that fails, whether its answer is lost, seconds that it
        takes longer)."""
        with self.lock:
            one, two, three = (self.random.random() for _ in range(3))
        faults = self.faults
        status = 503 if one < faults.unavailable else None
        if status is None and one < faults.unavailable + faults.too_many:
            status = 429
        return status, three < faults.lost, faults.seconds if two < faults.slow else 0.0


class _Handler(RequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections
    disable_nagle_algorithm = True

    def __init__(self, bucket: Bucket, *args):
        self.bucket = bucket
        super().__init__(bucket.storage, *args)

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle_one_request()

    def do_HEAD(self):
        self._do("GET")

    def do_GET(self):
        self._do("GET")

    def do_POST(self):
        self._do("POST")

    def do_PUT(self):
        self._do("PUT")

    def do_DELETE(self):
        self._do("DELETE")

    def do_PATCH(self):
        self._do("PATCH")

    def date_time_string(self, timestamp=None) -> str:
        return formatdate(time.time() + self.bucket.faults.skew, usegmt=True)

    def _do(self, method: str) -> None:
        bucket, body = self.bucket, _read_raw_data(self) or b""
        request = self._request(method, body)
        status, lost, seconds = bucket.draw()
        time.sleep(max(seconds, bucket.late(request)))
        with bucket.lock:
            bucket.counts[request.kind] += 1
            try:
                bucket.before(request)
            except Exception:
                status = 503
            answer = None if status else self._answer(method, request, body)
            if answer and method != "GET" and answer.startswith(b"HTTP/1.1 2"):
                bucket.writes.append((request.kind, request.name))
        if status or lost:
            bucket.counts["faults"] += 1
            answer = self._error(status or 503, "injected")
        self.wfile.write(answer)

    def _request(self, method: str, body: bytes) -> Request:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if upload := self.bucket.uploads.get(query.get("upload_id", "")):
            return upload
        match = _OBJECT.fullmatch(url.path)
        if not match:
            return Request("bucket" if "/b" in url.path else "other")
        where, name = match[1], unquote(match[2] or "")
        kind = {"GET": "get", "DELETE": "delete", "PATCH": "patch"}.get(method, "insert")
        if kind == "get":
            kind = "list" if not name else "read" if query.get("alt") == "media" else "get"
            kind = "read" if url.path.startswith("/download") else kind
        elif kind == "insert" and (target := _TARGET.fullmatch(match[2] or "")):
            kind, where, name = "copy", target[2], unquote(target[3])
        elif kind == "insert" and not name:
            name = query.get("name") or _name_in(body)
        elif kind == "insert" and name.endswith("/compose"):
            kind, name = "compose", name.removesuffix("/compose")
        given = [query.get(key) for key in ("ifGenerationMatch", "ifGenerationNotMatch")]
        return Request(kind, where, name, *(None if v is None else int(v) for v in given))

    def _answer(self, method: str, request: Request, body: bytes) -> bytes:
        """The emulator's answer; 412, 304 or 416 where it would not look."""
        now = self.bucket.generation(request.bucket, request.name)
        if request.kind in ("get", "read", "delete") and request.name and not now:
            return self._error(404, f"No such object: {request.name}")
        lawful = not self.bucket.faults.lawless and request.generation is not None
        if lawful and request.generation != now:
            return self._error(
                412, "At least one of the pre-conditions you specified did not hold."
            )
        if request.other_generation is not None and request.other_generation == now:
            return self._error(304, "")
        if request.kind == "read" and (refused := self._whole_range(request)):
            return refused
        del self.headers["Transfer-Encoding"]
        del self.headers["Content-Length"]
        self.headers["Content-Length"] = str(len(body))
        connection = self.rfile, self.wfile
        self.rfile, self.wfile = io.BytesIO(body), io.BytesIO()
        self._generation = now if request.kind == "read" else 0
        try:
            getattr(super(), f"do_{method}")()
            answer = self.wfile.getvalue()
        finally:
            self.rfile, self.wfile = connection
        started = re.search(rb"(?i)^location:.*upload_id=([^&\s]+)", answer, re.MULTILINE)
        if started:
            self.bucket.uploads[started[1].decode()] = request
        return answer

    def _whole_range(self, request: Request) -> bytes | None:
        """Gives a range a start and an end, as the emulator wants them; 416 for one outside."""
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return None
        size = int(self.bucket.storage.objects[request.bucket][request.name]["size"])
        if match[1]:
            start, end = int(match[1]), min(int(match[2] or size - 1), size - 1)
        else:
            start, end = max(0, size - int(match[2])), size - 1
        if start >= size:
            return self._error(416, "The requested range cannot be satisfied.")
        del self.headers["Range"]
        self.headers["Range"] = f"bytes={start}-{end}"
        return None

    def end_headers(self) -> None:
        if generation := getattr(self, "_generation", 0):
            self.send_header("x-goog-generation", str(generation))
            written = generation / 1e9 + self.bucket.faults.skew  # the emulator takes nanoseconds
            self.send_header("Last-Modified", formatdate(written, usegmt=True))
        self._generation = 0
        super().end_headers()

    def _error(self, status: int, message: str) -> bytes:
        reasons = {412: "conditionNotMet", 404: "notFound", 429: "rateLimitExceeded"}
        error = {"code": status, "message": message}
        error["errors"] = [{"message": message, "reason": reasons.get(status, "backendError")}]
        body = b"" if status == 304 else json.dumps({"error": error}).encode()
        head = [
            f"HTTP/1.1 {status} Refused",
            f"Date: {self.date_time_string()}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def _name_in(body: bytes) -> str:
    """The object's name in the first part of a multipart or resumable upload."""
    match = re.search(rb'"name":\s*("(?:[^"\\]|\\.)*")', body[:4096])
    return json.loads(match[1]) if match else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""


@contextlib.contextmanager
def serving(name: str = "bucket", port: int = 0, faults: Faults | None = None) -> Iterator[Bucket]:
    """An empty bucket gs://`name`, served until the end of the block."""
    storage = Storage(use_memory_fs=True)
    storage._write_config_to_file = lambda: None  # all of the metadata, at each write
    create_bucket(name, storage)
    bucket = Bucket(f"gs://{name}", "", storage, faults or Faults())
    server = _Server(("127.0.0.1", port), partial(_Handler, bucket))
    bucket.host = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield bucket
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def bucket(name: str = "bucket", faults: Faults | None = None) -> Iterator[Bucket]:
    """As `serving`, with the environment of this process and its children set to find it."""
    with serving(name, faults=faults) as found:
        before = {key: os.environ.get(key) for key in found.environment}
        os.environ.update(found.environment)
        try:
            yield found
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="bucket", help="of at least three letters")
    parser.add_argument("--port", type=int, default=9000)
    for key in ("unavailable", "too_many", "slow", "lost", "seconds", "skew"):
        parser.add_argument(f"--{key}", type=float, default=getattr(Faults, key))
    given = vars(parser.parse_args())
    name, port = given.pop("name"), given.pop("port")
    with serving(name, port, Faults(**given)) as found:
        for key, value in found.environment.items():
            print(f"export {key}={value}")
        print(f"# {found.url} until Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
        print(dict(found.counts))


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    main()
