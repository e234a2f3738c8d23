"""Tests of the web page: what it may load, and that a browser shows the model."""

import base64
import hashlib
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from launch.checkout import ROOT
from tests.bench.sweeps import page as browsers
from tests.launch.chat.runs import DECODER, untrained

PAGE = ROOT / "launch" / "server" / "page.html"


def test_the_page_runs_its_own_script_and_nothing_else(server):
    with urllib.request.urlopen(server.address) as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert text == PAGE.read_text()
    for kind in ("script", "style"):
        (inside,) = re.findall(f"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy
    # Text of the model and of the user becomes text nodes, never markup.
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|style=", text)
    assert not re.search(r"\son\w+=|https?://|src=", text)


@pytest.mark.slow
def test_a_browser_finds_the_model(server):
    if not (browser := browsers.browser()):
        pytest.skip("this machine has no Chromium")
    flags = ["--headless", "--no-sandbox", "--virtual-time-budget=5000", "--enable-logging=stderr"]
    found = subprocess.run(
        [browser, *flags, "--dump-dom", server.address], capture_output=True, text=True, timeout=300
    )
    assert '<span id="model">tiny</span>' in found.stdout
    assert "template plain, context of 96 tokens" in found.stdout
    assert "Content Security Policy" not in found.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_replies_and_the_server(number, tmp_path):
    run = untrained(tmp_path / "tiny", DECODER)
    command = [sys.executable, "-m", "launch", "chat", f"--run={run}", "--serve=0"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while not lines or "serving on" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        address = re.search(r"http://127\.0\.0\.1:\d+/", lines[-1])[0]
        body = b'{"model": "tiny", "prompt": "a", "max_tokens": 95, "n": 60, "stream": true}'
        with urllib.request.urlopen(f"{address}v1/completions", body) as stream:
            assert stream.readline().startswith(b"data: ")
            process.send_signal(number)
            assert b"the reply is not complete" in stream.read().splitlines()[-2]
        assert process.wait(60) == 0
        assert process.stderr.read().endswith("the server has ended\n")
    finally:
        process.kill()
        process.wait()
