"""Serves the page of a sweep on this machine's loopback address while its trials run."""

import contextlib
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import is_remote
from launch.watching.nodes import as_it_runs
from launch.watching.runs_folder import runs_in
from scaling.ranking.trials import Sweep, read_sweeps

LOOPBACK = "127.0.0.1"
PAUSE, LONGEST = 1.0, 20.0  # seconds between two looks at the files, at least and at most
REMOTE_PAUSE = 10.0  # seconds between two looks at a bucket: each lists the folder
SHARE = 0.1  # of one core that looking takes, unless that makes the pause the longest
WAITING = (
    "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=2>"
    "<title>isoflop</title><p>No trial has been planned yet; this page asks again."
)
TYPES = {
    ".json": "application/json",
    ".csv": "text/csv",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
"""Files beside the page that its links may ask for."""


class Watched:
    """What is served of a sweep, made anew after its files have changed. `parts` holds "page",
    "data.json" and "curves.json"; `version` tells one state of them from another."""

    def __init__(self, folder: Path, metric: str):
        self.folder, self.metric = folder, metric
        self.parts: dict[str, bytes] = {}
        self.version, self.seen, self.next = "", None, 0.0
        self.ranked: tuple[Any, dict[str, Any]] | None = None
        self.lock = threading.Lock()

    def look(self) -> None:
        """Makes the parts anew if a file has changed, unless that was done a moment ago. Looks at
        a bucket are REMOTE_PAUSE apart, and read only what has changed."""
        with self.lock:
            began = time.thread_time()
            if time.monotonic() < self.next:
                return
            shortest = PAUSE
            if is_remote(self.folder):
                shortest, self.folder = REMOTE_PAUSE, runs_in(self.folder)
                self.next = time.monotonic() + REMOTE_PAUSE
            if (seen := stamps(self.folder)) == self.seen:
                return
            self._make(sweep_in(self.folder))
            pause = (time.thread_time() - began) / SHARE
            self.seen = seen
            self.next = time.monotonic() + min(LONGEST, max(shortest, pause))

    def _make(self, sweep: Sweep) -> None:
        from scaling.report.explorer.sweep_page import read_law, sweep_page
        from scaling.report.explorer.trial_columns import curve_columns, trial_columns

        out = self.folder / "report"
        curves, law = curve_columns(sweep, self.metric), read_law(sweep, out)
        data = trial_columns(sweep, self._ranking(sweep), curves) | {"law_version": law.version}
        self.parts = {
            "page": sweep_page(data, curves, law, out).encode(errors="backslashreplace"),
            "data.json": json.dumps(data).encode(),
            "curves.json": json.dumps(curves).encode(),
        }
        self.version = str(int(self.version or 0) + 1)

    def _ranking(self, sweep: Sweep) -> dict[str, Any]:
        """The ranking, which changes only when a trial ends."""
        from scaling.ranking.ranking import rank

        ended = [(trial.id, trial.status, bool(trial.result)) for trial in sweep.trials]
        if self.ranked is None or self.ranked[0] != ended:
            self.ranked = ended, rank(sweep, self.metric)
        return self.ranked[1]


def sweep_in(folder: Path) -> Sweep:
    """The sweep of a folder, with trials that a process trains right now as 'running'."""
    found = [sweep for sweep in read_sweeps(folder) if sweep.folder == folder]
    if not found:
        raise FileNotFoundError(f"runs={folder} holds no sweep; give the folder of one")
    return as_it_runs(found[0])


def stamps(folder: Path) -> tuple[Any, ...]:
    """Sizes and times of the files that the page is made of: if they change, it does."""
    files = [folder / "sweep.json", folder / "report" / "law.json"]
    trials = sorted(path for path in folder.iterdir() if path.is_dir())
    names = ("config.json", "metrics.jsonl", "result.json")
    found = []
    for path in (*files, *(trial / name for trial in trials for name in names)):
        with contextlib.suppress(OSError):
            about = path.stat()
            found.append((str(path), about.st_size, about.st_mtime_ns, about.st_ino))
    return tuple(found)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    watched: Watched

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        # A page of another site that got its name to mean this address must not read the runs.
        host = urllib.parse.urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if host not in (LOOPBACK, "localhost"):
            return self._answer(403, "text/plain", b"only this machine is served\n")
        name = urllib.parse.unquote(url.path).lstrip("/")
        try:
            self.watched.look()
        except (OSError, ValueError):  # a file that is just being written; the last state stays
            if not self.watched.parts:
                return self._answer(200, "text/html; charset=utf-8", WAITING.encode())
        parts, version = self.watched.parts, self.watched.version
        if name in ("", "index.html"):
            return self._answer(200, "text/html; charset=utf-8", parts["page"])
        if name in parts:
            if url.query == f"have={version}":
                return self._answer(204, "application/json", b"", version)
            return self._answer(200, "application/json", parts[name], version)
        return self._file(name)

    def _file(self, name: str) -> None:
        """A file of the report's folder that the page links to."""
        home = (self.watched.folder / "report").resolve()
        path = (home / name).resolve()
        if path.is_relative_to(home) and path.suffix in TYPES and path.is_file():
            return self._answer(200, TYPES[path.suffix], path.read_bytes())
        return self._answer(404, "text/plain", b"no such file\n")

    def _answer(self, code: int, kind: str, content: bytes, version: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        if version:
            self.send_header("ETag", version)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Requests are not logged: the terminal belongs to the sweep."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """One line instead of a traceback; none about a browser that went away."""
        if not isinstance(error := sys.exception(), ConnectionError):
            print(f"live page: {type(error).__name__}: {error}", file=sys.stderr)


@contextlib.contextmanager
def serving(folder: Path, metric: str = "loss", browse: bool = True) -> Iterator[str | None]:
    """Serves the page of the sweep in `folder` while entered, and opens it in a browser if there is
    one. Yields its address; None, after a line on stderr, if nothing can be served."""
    watched = Watched(folder, metric)
    handler = type("Handler", (_Handler,), {"watched": watched})
    try:
        server = _Server((LOOPBACK, 0), handler)
    except OSError as error:
        print(f"the page is not served ({error}); isoflop report writes it", file=sys.stderr)
        yield None
        return
    address = f"http://{LOOPBACK}:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"live page: {address}", file=sys.stderr, flush=True)
    if browse:
        open_browser(address)
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()


def open_browser(address: str) -> None:
    """Opens an address in a graphical browser, if the machine has one. Browsers of a
    terminal would take it over."""
    graphical = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if graphical:
        with contextlib.suppress(webbrowser.Error, OSError):
            webbrowser.open(address)
