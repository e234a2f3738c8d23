"""Tests of processes that never come: the others end in time and name them."""

import socket
import threading
import time

import pytest

from tests.launch.trial.test_distributed import end, free_port, start
from train.parallel import meeting
from train.parallel.meeting import NotMet, meet


def met(processes: int, present: list[int], wait: float) -> dict[int, str]:
    """What each of the processes that are present learns: "" or the NotMet error, in words."""
    where, found = f"127.0.0.1:{free_port()}", {}

    def one(key: int, process: int) -> None:
        try:
            meet(where, processes, process, wait)
            found[key] = ""
        except NotMet as error:
            found[key] = f"{error.why} {error.missing}"

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(present)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_all_are_here():
    assert met(3, [0, 1, 2], 5) == {0: "", 1: "", 2: ""}
    assert met(3, [2, 1, 0], 5) == {0: "", 1: "", 2: ""}


def test_those_who_are_missing_are_named_by_all():
    begun = time.monotonic()
    assert met(4, [0, 2], 0.6) == dict.fromkeys(range(2), "missing (1, 3)")
    assert met(3, [1, 2], 0.6) == dict.fromkeys(range(2), "missing (0,)")
    assert time.monotonic() - begun < 2 * (0.6 + 2)


@pytest.mark.slow
def test_a_number_that_is_too_large_or_taken_is_said():
    found = met(2, [0, 2], 0.6)
    assert found[1] == f"{meeting.TOO_LARGE} ()" and found[0] == "missing (1,)"
    found = met(3, [0, 1, 1], 0.8)
    assert sorted(found.values()) == ["missing (2,)", "missing (2,)", f"{meeting.TAKEN} ()"]


def test_strangers_and_those_who_left_do_not_count():
    port = free_port()
    found = []

    def host() -> None:
        try:
            meet(f"127.0.0.1:{port}", 3, 0, 1.0)
        except NotMet as error:
            found.append(error.missing)
        except OSError as error:  # another program took the port meanwhile
            found.append(error)

    thread = threading.Thread(target=host)
    thread.start()
    time.sleep(0.2)
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"isoflop 1\n"):  # the second one leaves at once
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(said)
    thread.join(10)
    assert found == [(1, 2)]


@pytest.mark.slow
@pytest.mark.parametrize("present, missing", [((0, 1), 2), ((1, 2), 0)])
def test_a_peer_that_never_comes_is_named_within_10_seconds_of_the_timeout(
    text_folder, compiled_once, present, missing
):
    """The time counts from when process 0, if it is there, can be reached: imports come before."""
    wait, port = 8, free_port()
    flags = f"--coordinator=127.0.0.1:{port}", "--processes=3", f"--wait={wait}"
    started = [start(text_folder, "absent", 1, (*flags, f"--process={i}")) for i in present]
    begun = time.monotonic()
    while 0 in present and time.monotonic() < begun + 100:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            begun = time.monotonic()
            break
        except OSError:
            time.sleep(0.05)
    codes, outputs = end(*started)
    took = time.monotonic() - begun
    print(f"\nfigure: --wait={wait}, process {missing} absent: {took:.1f} s")
    assert codes == [42, 42] and (took < wait + 10 or missing == 0)
    for output in outputs:
        assert len(output.splitlines()) == 1 and f" {missing} " in output
        assert " missing; start process 0 on that host" in output
