"""Tests of the server when the device fails: what clients are told, and whether it goes on."""

import http.client
import json
import threading
import urllib.parse
from types import SimpleNamespace

import pytest

from launch.chat import engine as engines
from tests.launch.server.conftest import post, running


def test_an_error_of_the_device_is_500_and_after_the_engines_end_503(opened, monkeypatch):
    real, broken = engines.slots.advance, threading.Event()

    def advance(*args):
        if broken.is_set():
            raise RuntimeError("device lost\na stack")
        return real(*args)

    monkeypatch.setattr(engines.slots, "advance", advance)
    body = {"model": "tiny", "prompt": "ab", "max_tokens": 4}
    with running(opened) as server:

        def asked(**more):
            return post(server, "/v1/completions", json.dumps(body | more))

        broken.set()
        status, answer = asked()
        assert (status, answer["error"]["message"]) == (500, "RuntimeError: device lost")
        assert answer["error"]["type"] == "server_error"
        place = urllib.parse.urlsplit(server.address)
        link = http.client.HTTPConnection(place.hostname, place.port, timeout=300)
        link.request("POST", "/v1/completions", json.dumps(body | {"stream": True}))
        *_, last, _ = link.getresponse().read().decode().split("\n\n")
        assert json.loads(last.removeprefix("data: "))["error"] == answer["error"]
        broken.clear()
        assert asked()[0] == 200  # the engine goes on
        broken.set()
        monkeypatch.setattr(engines, "_emptied", None)
        assert asked()[0] == 500
        server.engine.thread.join(10)
        status, answer = asked()
        assert status == 503 and "the engine has ended (TypeError" in answer["error"]["message"]


def test_an_engine_that_ends_ends_the_server(capsys):
    engine = SimpleNamespace(thread=threading.Thread(target=int), failure=MemoryError("no"))
    server = SimpleNamespace(
        thread=threading.current_thread(), address="x", end=lambda: None, engine=engine
    )
    serving = pytest.importorskip("launch.server.serving")
    assert not serving.serve_until_signal(server)
    assert "because of an error (MemoryError: no)" in capsys.readouterr().err
