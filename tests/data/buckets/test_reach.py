"""Tests that a bucket that cannot be used is one line, soon, before anything is made."""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from data.buckets import reach
from data.files import path_of
from launch import __main__ as command


class _Answers(BaseHTTPRequestHandler):
    """Answers every request of one kind with a status, or not at all for the status 0."""

    protocol_version, status, methods = "HTTP/1.1", 403, ("GET", "POST", "PUT", "DELETE", "HEAD")

    def _answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.status == 0:
            time.sleep(5)
            return
        refused = self.command in self.server.methods
        status = self.server.status if refused else 200
        message = "alice does not have storage.objects.list access"
        error = {"error": {"code": status, "message": message}} if refused else {"items": []}
        body = json.dumps(error).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer

    def log_message(self, *_):
        pass


@pytest.fixture
def store(served, monkeypatch):
    """Starts a store that refuses, and makes this process use it."""
    servers = []

    def start(status: int, methods=_Answers.methods) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
        server.daemon_threads, server.status, server.methods = True, status, methods
        if status in (401, 403, 404):  # it answers, on a busy machine after a while
            monkeypatch.setattr(reach, "SECONDS", 20.0)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")

    monkeypatch.setattr(reach, "SECONDS", 1.0)
    monkeypatch.setattr(reach, "_reached", set())
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (403, r"cannot be read: no permission \(.*alice does not have .*\); give this account"),
        (401, r"cannot be read: no credentials \(.*\); run gcloud auth application-default login"),
        (404, r"there is no bucket runs; create it"),
        (0, r"cannot be reached \(no answer in time\); check the network and \$STORAGE_EMULATOR"),
        (503, r"cannot be reached \(no answer in time\)"),
    ],
)
def test_a_bucket_that_refuses_is_one_line(store, status, said):
    store(status)
    begun = time.monotonic()
    with pytest.raises(ValueError, match=said) as raised:
        reach.require_readable(path_of("gs://runs/sweep", "workdir"), "workdir")
    assert str(raised.value).startswith("workdir=gs://runs/sweep")
    assert "\n" not in str(raised.value) and time.monotonic() - begun < 4


def test_an_endpoint_that_is_down_is_one_line(store, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"cannot be reached .*127\.0\.0\.1:9"):
        reach.require_readable(path_of("gs://runs/sweep", "workdir"), "workdir")


def test_a_bucket_that_may_only_be_read_is_refused_as_a_workdir(store):
    store(403, methods=("POST",))
    path = path_of("gs://runs/sweep", "workdir")
    reach.require_readable(path, "workdir")
    with pytest.raises(ValueError, match=r"^workdir=gs://runs/sweep cannot be written: no perm"):
        reach.require_writable(path, "workdir")


def test_a_bucket_that_answers_is_asked_once(shared, served, monkeypatch):
    monkeypatch.setattr(reach, "_reached", set())
    before = sum(served.counts.values())
    for key in ("workdir", "data.cache", "train.init_from"):
        reach.require_readable(path_of(f"{shared}/{key}", key), key)
    assert sum(served.counts.values()) - before == 1
    reach.require_writable(path_of(shared, "workdir"), "workdir")
    assert not list(path_of(shared, "workdir").iterdir())


@pytest.mark.parametrize("bucket", ["s3://missing", "s3://shared"])
def test_a_bucket_of_s3_is_asked(served_s3, bucket):
    path = path_of(f"{bucket}/sweep", "workdir")
    if bucket == served_s3:
        reach.require_writable(path, "workdir")
    else:
        with pytest.raises(ValueError, match="there is no bucket missing; create it"):
            reach.require_readable(path, "workdir")


@pytest.mark.parametrize(
    ("verb", "flag", "key"),
    [
        ("train", "--workdir=gs://missing/x", "--workdir"),
        ("sweep", "--workdir=gs://missing/x", "--workdir"),
        ("runs", "--runs=gs://missing/x", "--runs"),
        ("train", "--config.data.cache=gs://missing/x", "data.cache"),
        ("train", "--config.data.corpora=gs://missing/x", "data.corpora"),
        ("sweep", "--config.train.init_from=gs://missing/x", "train.init_from"),
    ],
)
def test_a_missing_bucket_stops_a_verb_before_it_writes(
    served, tmp_path, monkeypatch, capsys, verb, flag, key
):
    monkeypatch.chdir(tmp_path)
    config = [] if verb == "runs" else ["--config=configs/quickstart.py", "--workdir=runs"]
    assert command.main([verb, *config, flag]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"isoflop {verb}: {key}=gs://missing/x: there is no bucket missing; create it, or correct "
        "the name\n"
    )
    assert not list(tmp_path.iterdir())
