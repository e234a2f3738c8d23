"""Serves the application until SIGINT or SIGTERM ends it."""

import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass

import uvicorn

from launch.chat.engine import Engine, in_one_line
from launch.chat.opened import Opened
from launch.server.app import Limits, Service, is_loopback

GRACE = 5  # seconds for open connections at the end
CONNECTIONS = 1024  # at once


@dataclass(frozen=True)
class Place:
    """Where to listen."""

    host: str
    port: int


def bound(place: Place, token: str) -> socket.socket:
    """A listening socket. ValueError where others could reach it without a token, OSError where
    nothing can listen there."""
    if not is_loopback(place.host) and not token:
        raise ValueError(
            f"host={place.host} lets other machines in; set ISOFLOP_TOKEN to a secret that clients "
            "must send, or use --host=127.0.0.1"
        )
    try:
        info = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(info[0], info[1])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(info[4])
        listening.listen(1024)
    except OSError as error:
        raise ValueError(
            f"serve={place.port}: cannot listen on {place.host} ({error.strerror}); use another "
            "port"
        ) from None
    return listening


class Running:
    """A server that runs in a thread of its own; `address` is that of the page."""

    def __init__(self, opened: Opened, engine: Engine, limits: Limits, listening: socket.socket):
        self.engine = engine
        app = Service(opened, engine, limits).app()
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", ws="none",
            server_header=False, timeout_graceful_shutdown=GRACE, limit_concurrency=CONNECTIONS,
        )  # fmt: skip
        self.server = uvicorn.Server(config)
        host, port = listening.getsockname()[:2]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        run = lambda: self.server.run(sockets=[listening])  # noqa: E731
        # Signals belong to the main thread: uvicorn would raise them again when it ends.
        self.thread = threading.Thread(target=run, name="server", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Ends replies that are being drawn, then the connections, then the thread."""
        self.server.should_exit = True
        self.engine.close()
        self.thread.join(GRACE + 5)


def serve_until_signal(running: Running) -> bool:
    """Waits for SIGINT or SIGTERM, then ends the server; a second one does not wait. Returns
    whether the server and the engine ran until then."""
    wanted, before = threading.Event(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda *_: wanted.set())
    try:
        print(f"serving on {running.address} (page and API); Ctrl-C ends it", file=sys.stderr)
        sys.stderr.flush()
        threads = running.thread, running.engine.thread
        while (well := all(map(threading.Thread.is_alive, threads))) and not wanted.wait(0.5):
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    running.end()
    reason = "" if well else " because of an error"
    if failure := running.engine.failure:
        traceback.print_exception(failure)  # for the server's log
        reason += f" ({in_one_line(failure)})"
    print(f"the server has ended{reason}", file=sys.stderr)
    return well
