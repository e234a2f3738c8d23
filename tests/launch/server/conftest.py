"""A server on the loopback address, with an untrained model."""

import contextlib
import http.client
import json
import urllib.parse
from collections.abc import Iterator

import pytest

from launch.chat.engine import Engine
from launch.chat.opened import open_run
from tests.launch.chat.runs import DECODER, untrained

SLOTS, WAITING = 3, 5


@pytest.fixture(scope="module")
def opened(tmp_path_factory, compiled_once):
    return open_run(untrained(tmp_path_factory.mktemp("runs") / "tiny", DECODER))


@contextlib.contextmanager
def running(opened, slots=SLOTS, waiting=WAITING, **limits) -> Iterator:
    """A server that runs while entered."""
    serving = pytest.importorskip("launch.server.serving", reason="starlette is not installed")
    engine = Engine(opened.model, slots, opened.length, waiting)
    listening = serving.bound(serving.Place("127.0.0.1", 0), "")
    server = serving.Running(opened, engine, serving.Limits(**limits), listening)
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def server(opened):
    with running(opened) as server:
        yield server


def post(server, path, body, headers=()):
    """(status, the parsed answer) of a body of bytes."""
    place = urllib.parse.urlsplit(server.address)
    link = http.client.HTTPConnection(place.hostname, place.port, timeout=300)
    link.request("POST", path, body, {"Content-Type": "application/json", **dict(headers)})
    answer = link.getresponse()
    return answer.status, json.loads(answer.read())
