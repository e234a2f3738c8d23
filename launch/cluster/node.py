"""What a machine of a cluster does once isoflop is installed: `python -m launch.cluster.node`.

The machines of a cluster meet in a folder of the shared --workdir. The head writes its address
and a token there, and at the end the exit code of the command; the workers read both. A head that
is lost comes back with another address, so every part is a loop.
"""

import argparse
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from data.files import to_path
from launch.cluster.meeting import EXIT, HEAD, read, write
from launch.errors import BAD_INPUT, BUG, DIVERGED, DONE, PREEMPTED

FINAL = {DONE, BUG, BAD_INPUT, DIVERGED}
"""Exit codes after which the command is not run again: it would end the same way. A sweep has tried
a failing trial several times before it ends with 1."""
PORT = 6379  # of Ray's head
POLL = 10.0  # seconds between looks at the folder, and before another attempt
READY = 120.0  # seconds in which Ray's head has to open its port
SETTLE = 30.0  # seconds between the end of one host of a run and its exit code in the folder


def address_of_this_host() -> str:
    """The address by which other machines of the network reach this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):
            probe.connect(("10.255.255.255", 1))  # sends nothing: it only chooses the interface
            return probe.getsockname()[0]
    return socket.gethostbyname(socket.gethostname())


def admitted(token: str) -> dict[str, str]:
    """The variables by which Ray's processes let each other in: who can read the shared folder can
    join, nobody else."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


class Children:
    """The processes that this one has started. SIGTERM and Ctrl-C reach them all, and then
    `stopped` is set: nothing is started again."""

    def __init__(self):
        self.running: list[subprocess.Popen] = []
        self.stopped = False
        self.environment: dict[str, str] = {}  # more variables of the processes to come
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def start(self, argv: Sequence[str]) -> subprocess.Popen:
        print("starting:", *argv, flush=True)
        child = subprocess.Popen(argv, env=os.environ | self.environment)
        self.running.append(child)
        return child

    def end(self, child: subprocess.Popen, within: float = 30.0) -> None:
        """Ends a process: SIGTERM, then SIGKILL after so many seconds."""
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        try:
            child.wait(within)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self.running.remove(child)

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self.stopped and time.monotonic() < until:
            time.sleep(min(0.1, seconds))

    def _stop(self, number: int, frame: object) -> None:
        self.stopped = True
        for child in self.running:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)


def head(
    home: Path,
    command: Sequence[str],
    children: Children,
    port: int = PORT,
    more: Sequence[str] = (),
) -> int:
    """Starts Ray's head, says where it is, and runs the command until it has ended for good.
    Without a command the head stays. `more` are flags of Ray's. Returns the exit code."""
    while not children.stopped and read(home, EXIT) is None:
        children.environment = admitted(token := secrets.token_hex(32))
        ray = children.start(["ray", "start", "--head", f"--port={port}", "--block", *more])
        try:
            if not _opened(port, ray, children):
                continue
            address = f"{address_of_this_host()}:{port}"
            write(home, HEAD, {"address": address, "token": token})
            children.environment["RAY_ADDRESS"] = address  # where the command finds Ray
            if not command:
                while ray.poll() is None and not children.stopped:
                    children.pause(1.0)
                continue
            run(home, command, children, beside=ray)
        finally:
            children.end(ray)
            if read(home, EXIT) is None:
                children.pause(POLL)
    return _code(read(home, EXIT))


def worker(home: Path, children: Children) -> int:
    """Joins the head wherever it is until the cluster's command has ended. Returns 0 then."""
    while not children.stopped and read(home, EXIT) is None:
        found = read(home, HEAD)
        if found:
            children.environment = admitted(found["token"])
            ray = children.start(["ray", "start", f"--address={found['address']}", "--block"])
            moved = None
            while ray.poll() is None and not moved and not children.stopped:
                children.pause(POLL)
                # A read that fails says nothing: the head is where it was.
                moved = read(home, EXIT) or (read(home, HEAD) or found) != found
            children.end(ray)
        children.pause(POLL)
    return PREEMPTED if read(home, EXIT) is None else DONE


def run(
    home: Path,
    command: Sequence[str],
    children: Children,
    beside: subprocess.Popen | None = None,
    settle: float = 0.0,
) -> int:
    """Runs the command again while it ends with 42 or is killed, and while `beside` lives. The last
    exit code goes into the folder, `settle` seconds later, which lets other hosts end as well."""
    while not children.stopped and read(home, EXIT) is None:
        child = children.start(command)
        while child.poll() is None and (beside is None or beside.poll() is None):
            time.sleep(0.1)
        children.end(child)
        print(f"ended with {child.returncode}", flush=True)
        if child.returncode in FINAL and not children.stopped:
            children.pause(settle)
            write(home, EXIT, {"code": child.returncode, "time": time.time()})
            return child.returncode
        if beside is not None and beside.poll() is not None:
            return PREEMPTED
        children.pause(POLL)
    return _code(read(home, EXIT))


def _code(ended: dict | None) -> int:
    return PREEMPTED if ended is None else int(ended["code"])


def _opened(port: int, ray: subprocess.Popen, children: Children) -> bool:
    """Whether Ray's head accepts connections, within READY seconds."""
    until = time.monotonic() + READY
    while time.monotonic() < until and ray.poll() is None and not children.stopped:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return True
        children.pause(0.2)
    return False


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="After --: the command that the head, or each host, runs."
    )
    parser.add_argument("role", choices=("head", "worker", "train"))
    parser.add_argument("--home", required=True, help="the folder in which the machines meet")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--num_cpus", type=int, help="cores of the head for trials")
    end = argv.index("--") if "--" in argv else len(argv)
    given, command = parser.parse_args(argv[:end]), argv[end + 1 :]
    home, children = to_path(given.home), Children()
    if given.role == "head":
        more = [] if given.num_cpus is None else [f"--num-cpus={given.num_cpus}"]
        return head(home, command, children, given.port, more)
    if given.role == "worker":
        return worker(home, children)
    return run(home, command, children, settle=SETTLE)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main(sys.argv[1:]))
