"""Tests of requests whose answer is lost, late or never comes."""

import errno
import http.server
import socket
import threading
import time
from typing import ClassVar

import pytest

from data.buckets import attempts
from data.buckets.attempts import Changed, Unreachable
from data.buckets.gcs import Gcs
from data.buckets.s3 import S3
from data.buckets.versioned import client
from tests.bucket import bucket

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@pytest.fixture
def s3(monkeypatch):
    """Makes a client of S3 for a host."""

    def make(host: str) -> S3:
        for key, value in (KEYS | {"AWS_ENDPOINT_URL": host}).items():
            monkeypatch.setenv(key, value)
        return S3()

    return make


@pytest.mark.parametrize("scheme", ["gs", pytest.param("s3", marks=pytest.mark.slow)])
def test_a_server_that_never_answers_is_left_in_time(monkeypatch, s3, scheme):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
        store = Gcs() if scheme == "gs" else s3(host)
        for ask in (
            lambda: store.put(f"{scheme}://abc/x", b"x", "1", 0.4),
            lambda: store.get(f"{scheme}://abc/x", 0.4),
            lambda: store.listed(f"{scheme}://abc/x", 0.4),
        ):
            began = time.monotonic()
            with pytest.raises(Unreachable, match="did not answer within 0 s") as raised:
                ask()
            assert time.monotonic() - began < 3 and raised.value.errno == errno.ETIMEDOUT


class OneObject(http.server.BaseHTTPRequestHandler):
    """A bucket of S3 that stores the first put, and answers that it has failed."""

    protocol_version = "HTTP/1.1"
    store: ClassVar[dict[str, bytes]] = {}
    log: ClassVar[list[int]] = []

    def log_message(self, *args) -> None:
        pass

    def do_PUT(self) -> None:
        body, key = self.rfile.read(int(self.headers["Content-Length"])), self.path.split("?")[0]
        if key in self.store:
            return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.store[key] = body
        return self.answer(500, b"<Error><Code>InternalError</Code></Error>")

    def do_GET(self) -> None:
        self.answer(200, self.store[self.path.split("?")[0]])

    def answer(self, code: int, body: bytes) -> None:
        self.log.append(code)
        self.send_response(code)
        for name, value in {
            "Content-Length": str(len(body)),
            "ETag": '"x"',
            "Last-Modified": "Mon, 30 Nov 2026 04:00:00 GMT",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def test_a_put_of_s3_whose_answer_was_lost_is_known_as_its_own(monkeypatch, s3):
    """Botocore must not ask again by itself: the 412 would look like another writer. Control:
    content of another is one."""
    monkeypatch.setattr(attempts, "_FIRST", 0.001)
    monkeypatch.setattr(OneObject, "store", {})
    monkeypatch.setattr(OneObject, "log", [])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), OneObject)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        store = s3(f"http://127.0.0.1:{server.server_port}")
        assert store.put("s3://shared/x", b"mine", "") == '"x"'
        assert OneObject.log == [500, 412, 200]
        with pytest.raises(Changed):
            store.put("s3://shared/x", b"of another", "")
        assert OneObject.store == {"/shared/x": b"mine"}
    finally:
        server.shutdown()
        server.server_close()


def test_a_token_that_cannot_be_fetched_now_is_asked_for_again(monkeypatch):
    """Control: credentials that are refused are not."""
    from google.auth.exceptions import RefreshError, TransportError

    monkeypatch.setattr(attempts, "_FIRST", 0.001)
    with bucket():
        store = client("gs://bucket")
        store.put("gs://bucket/x", b"x")
        request, failures = store._session.request, []

        def failing(*args, **kwargs):
            if failures:
                raise failures.pop()
            return request(*args, **kwargs)

        monkeypatch.setattr(store._session, "request", failing)
        failures[:] = [TransportError("no route"), RefreshError("later", retryable=True)]
        assert store.get("gs://bucket/x")[0] == b"x" and failures == []
        failures[:] = [RefreshError("revoked")]
        with pytest.raises(PermissionError, match="gcloud auth application-default login"):
            store.get("gs://bucket/x")
