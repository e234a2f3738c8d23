"""Lets the processes of a run meet before jax joins them, so that each can say who is missing.

jax's own meeting ends at its deadline and names nobody. So process 0 first listens on the
coordinator's port itself. The others connect, say their number, and wait until all are here or the
time is over; then process 0 leaves the port to jax.
"""

import contextlib
import re
import socket
import time

ALL, MISSING, TOO_LARGE, TAKEN = "all", "missing", "too large", "taken"


class NotMet(Exception):
    """The processes did not meet; `why` is MISSING, TOO_LARGE (this process has a number that
    process 0 does not expect) or TAKEN (another has the same number)."""

    def __init__(self, why: str, missing: tuple[int, ...] = ()):
        super().__init__(why)
        self.why, self.missing = why, missing


def meet(coordinator: str, processes: int, process: int, wait: float) -> None:
    """Returns once all processes are here. Raises NotMet after `wait` seconds, and OSError in
    process 0 if its port is taken. `coordinator` is HOST:PORT."""
    host, _, port = coordinator.rpartition(":")
    if process == 0:
        _wait_for_all(int(port), processes, time.monotonic() + wait)
    else:
        _attend(host.strip("[]"), int(port), process, time.monotonic() + wait)


def _wait_for_all(port: int, processes: int, latest: float) -> None:
    here: dict[int, socket.socket] = {}
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    with (
        contextlib.ExitStack() as opened,
        socket.create_server(
            ("", port), family=family, backlog=processes, dualstack_ipv6=both
        ) as listener,
    ):
        listener.settimeout(0.2)
        while missing := [i for i in range(1, processes) if i not in here or _gone(here[i])]:
            if time.monotonic() > latest:
                break
            with contextlib.suppress(TimeoutError):
                peer = opened.enter_context(listener.accept()[0])
                number = _number(peer)
                if number is not None and not 0 < number < processes:
                    _tell(peer, TOO_LARGE)
                elif number in here and not _gone(here[number]):
                    _tell(peer, TAKEN)
                elif number is not None:
                    here[number] = peer
                    left = [i for i in range(1, processes) if i not in here]
                    for other in here.values() if left else ():
                        _tell(other, _line(left))
        for peer in here.values():
            _tell(peer, _line(missing))
        for peer in here.values():  # they close first, which leaves the port free
            with contextlib.suppress(OSError):
                peer.settimeout(1)
                peer.recv(1)
    if missing:
        raise NotMet(MISSING, tuple(missing))


def _line(missing: list[int]) -> str:
    return f"{MISSING} {' '.join(map(str, missing))}" if missing else ALL


def _number(peer: socket.socket) -> int | None:
    """The number that a process says; None for a stranger."""
    try:
        peer.settimeout(2)
        said = re.fullmatch(rb"isoflop (\d{1,9})\n", peer.recv(64))
        peer.setblocking(False)
    except OSError:
        return None
    return int(said[1]) if said else None


def _gone(peer: socket.socket) -> bool:
    """Whether the process at the other end has ended."""
    try:
        return peer.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _tell(peer: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):
        peer.sendall(f"{line}\n".encode())


def _attend(host: str, port: int, process: int, latest: float) -> None:
    missing = (0,)
    while (left := latest - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=min(left, 2)) as peer:
                peer.sendall(f"isoflop {process}\n".encode())
                peer.settimeout(left + 2)  # process 0 may have begun a little later
                for line in peer.makefile():
                    word, *numbers = line.rstrip("\n").split(" ")
                    if line.rstrip("\n") in (TOO_LARGE, TAKEN):
                        raise NotMet(line.rstrip("\n"))
                    if word == ALL:
                        return
                    missing = tuple(map(int, numbers)) if word == MISSING else missing
        except (OSError, ValueError):
            pass
        time.sleep(0.1)  # it is not there yet, or has ended
    raise NotMet(MISSING, missing)
