"""Tests of the lock of a folder: one owner at a time, and a frozen one learns that it has lost."""

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from data.atomic import write_atomic
from data.buckets import attempts, lease
from data.buckets.lease import Held, LostLock, Owner, Times, break_stale, take, watched
from data.buckets.mirrored import Mirrored, appending
from data.buckets.scratch import _tidied, scratch
from data.buckets.times import of_environment
from data.buckets.versioned import client
from data.files import to_path
from launch.trial import owner as shown
from tests.bucket import Faults, bucket


class Clock:
    """A clock that tests move. `frozen` leases beat when they are told to, not by themselves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def served():
    with bucket() as found:
        yield found


@pytest.fixture
def folder(served):
    return to_path("gs://bucket/run")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def times(clock, monkeypatch) -> Times:
    """10 s and 60 s on a clock of its own. Threads of leases sleep; `_beat` is called by hand."""
    monkeypatch.setattr(lease._Beating, "_beat_on", lambda self: None)
    monkeypatch.setattr(Owner, "dead", property(lambda self: False))  # as if on other machines
    return Times(10, 60, clock, clock.sleep)


def quiet(line: str) -> None:
    pass


def test_a_lock_names_its_owner_and_is_gone_after_its_release(served, folder, times):
    held = take(folder, times, quiet)
    about = json.loads(served.read("run/lock"))
    assert about["process"] == os.getpid() and about["token"] == held.token and about["since"]
    assert str(watched(folder, times)[0]) == f"process {os.getpid()} on {about['host']}"
    held.release()
    assert served.names() == [] and watched(folder, times) is None


def test_a_living_owner_keeps_others_out(served, folder, times, clock):
    held = take(folder, times, quiet)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now % 10 < 2:
            held._beat()

    said = []
    with pytest.raises(Held, match=f"process {os.getpid()} on "):
        take(folder, dataclasses.replace(times, sleep=sleep), said.append)
    assert "watching for 60 s" in said[0] and clock.now < 1015  # one beat tells
    held.confirm()


def test_a_silent_lock_is_taken_after_ttl_and_the_owner_learns_it(served, folder, times, clock):
    first = take(folder, times, quiet)
    began = clock.now
    second = take(folder, times, quiet)
    assert 60 <= clock.now - began <= 64
    with pytest.raises(LostLock, match=f"was taken over by process {os.getpid()}"):
        first.confirm()
    with pytest.raises(LostLock):
        first.check()
    second.confirm()
    writes = len(served.writes)
    first.release()  # of a lock that it has not: nothing happens
    assert len(served.writes) == writes and served.names() == ["run/lock"]


def test_confirm_asks_only_after_half_of_ttl(served, folder, times, clock):
    held = take(folder, times, quiet)
    before = served.counts.total()
    clock.now += 29
    held.confirm()
    assert served.counts.total() == before
    clock.now += 2
    held.confirm()
    assert served.counts.total() == before + 1 and held.owner.beats == 1


def test_without_confirm_a_thawed_owner_would_write(served, folder, times, clock):
    """The control of the whole: what `confirm` guards is a write that the bucket would take."""
    first, store = take(folder, times, quiet), client(folder)
    second = take(folder, times, quiet)
    store.put("gs://bucket/run/metrics.jsonl", b"of the second")
    with pytest.raises(LostLock):
        first.confirm()
        store.put("gs://bucket/run/metrics.jsonl", b"of the first")
    assert served.read("run/metrics.jsonl") == b"of the second"
    store.put("gs://bucket/run/metrics.jsonl", b"of the first")
    assert served.read("run/metrics.jsonl") == b"of the first"
    second.release()


def test_of_eight_that_take_a_stale_lock_one_has_it(served, folder, clock, times):
    take(folder, times, quiet)
    watched(folder, times)
    clock.now += 61
    found = []

    def one() -> None:
        try:
            found.append(take(folder, times, quiet, wait=False))
        except Held:
            pass

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    found[0].confirm()


def test_a_sweep_lets_a_stale_lock_go(served, folder, clock, times):
    first = take(folder, times, quiet)
    assert break_stale(folder, times) == ""
    clock.now += 30
    first._beat()
    clock.now += 40
    assert break_stale(folder, times) == ""  # the beat was seen now for the first time
    clock.now += 61
    assert break_stale(folder, times) == str(first.owner) and served.names() == []
    with pytest.raises(LostLock, match="another process, which has left it since"):
        first.confirm()


def test_a_dead_process_of_this_machine_is_not_waited_for(served, folder):
    code = (
        "import os, sys; from data.buckets import lease; from data.files import to_path\n"
        "lease.take(to_path(sys.argv[1]), lease.Times(100, 600)); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, "gs://bucket/run"], timeout=60)
    assert served.names() == ["run/lock"]
    began = time.monotonic()
    take(folder, Times(100, 600), quiet).release()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("skew", [-600, 600])
def test_clocks_ten_minutes_off_do_no_harm_and_are_said_once(folder, served, times, skew):
    lease._warned.clear()
    served.faults.skew = skew
    said = []
    take(folder, times, said.append).release()
    take(folder, times, said.append).release()
    way = "behind" if skew > 0 else "ahead of"
    assert len(said) == 1
    assert re.search(rf"this machine is (599|600|601) s {way} that of the bucket", said[0])
    served.faults.skew, said[:] = 0, []
    lease._warned.clear()
    take(folder, times, said.append).release()
    assert said == []


def test_beats_that_get_no_answer_keep_the_lock(folder, served, times, monkeypatch):
    """Lost answers, and a time in which the bucket cannot be reached at all."""
    monkeypatch.setattr(attempts, "_FIRST", 0.001)
    served.faults = Faults(lost=0.4, unavailable=0.2, too_many=0.1)
    held = take(folder, times, quiet)
    for _ in range(20):
        held._beat()
    assert served.counts["faults"] > 10
    served.faults = Faults(lost=1)
    monkeypatch.setattr(held, "times", dataclasses.replace(times, ttl=0.1))
    with pytest.raises(TimeoutError):
        held._beat()  # it was written, but nobody said so
    served.faults = Faults()
    held._beat()
    held.confirm()
    held.release()
    assert served.names() == []


def test_a_store_that_ignores_preconditions_is_refused(folder, served, times):
    lease._keep_out.clear()
    served.faults.lawless = True
    with pytest.raises(OSError, match="ignores preconditions, so it cannot keep two processes"):
        take(folder, times, quiet)


def test_a_lock_that_is_removed_while_it_is_taken_is_created_anew(folder, served, times):
    lease._keep_out.clear()
    puts = itertools.count()

    def before(request) -> None:
        if request.kind == "insert" and next(puts) == 1:  # asks whether preconditions work
            served.storage.objects[served.name].pop("run/lock")

    served.before = before
    held = take(folder, times, quiet)
    assert lease.parsed(served.read("run/lock")).token == held.token
    held.release()
    assert served.names() == []


def test_a_lease_renews_itself(folder, served):
    held = take(folder, Times(0.05, 0.5), quiet)
    deadline = time.monotonic() + 10
    while held.owner.beats < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    held.confirm()
    held.release()
    assert held.owner.beats >= 3 and served.names() == []
    assert served.counts["insert"] <= held.owner.beats + 3


def test_a_renewal_that_is_never_answered_does_not_cost_the_lock(folder, served):
    """One request hangs for longer than the lock lives; the next gets through."""
    lock = Times(0.1, 1.2)
    held, late = take(folder, lock, quiet), []

    def hang(request) -> float:
        if request.kind == "insert" and request.name == "run/lock" and not late:
            late.append(request)
            return 2.0
        return 0.0

    served.late = hang
    with pytest.raises(Held):
        for _ in range(3):  # 1.2 s each, if it looked dead
            take(folder, lock, quiet)
    time.sleep(1.3)
    assert late
    held.confirm()
    held.check()
    held.release()


def test_confirm_asks_for_longer_than_one_renewal(folder, served, times, clock, monkeypatch):
    monkeypatch.setattr(attempts, "_FIRST", 0.01)
    held = take(folder, dataclasses.replace(times, ttl=1.2), quiet)  # 0.1 s a renewal
    clock.now += 1
    began = time.monotonic()

    def down(request) -> None:
        if time.monotonic() - began < 0.5:
            raise ConnectionError

    served.before = down
    held.confirm()
    assert time.monotonic() - began > 0.5
    monkeypatch.setattr(lease, "WITHIN", 0.3)
    clock.now, began = clock.now + 1, time.monotonic() + 9  # it stays down
    with pytest.raises(attempts.Unreachable):
        held.confirm()


def test_a_silent_lock_is_shown_as_nobodys_at_once(folder, served, monkeypatch):
    """By the server's clock, also where this machine's is wrong. Control: a fresh lock is shown."""
    monkeypatch.setenv("ISOFLOP_LOCK", "0.5,2")
    other = Owner(7, "elsewhere", "other", machine="boot/ns")
    served.faults.skew = 500
    client(folder).put(f"{folder}/lock", other.content())
    assert shown.seen(folder) == "process 7 on elsewhere"
    assert shown.owner(folder) == "process 7 on elsewhere"
    time.sleep(3)
    assert shown.seen(folder) == ""
    lease._seen.clear()
    assert shown.owner(folder)  # who wants to take it has to watch it


@pytest.mark.parametrize("given", ["10", "a,b", "10,20", "0,60", "-1,60", "10,60,3", "10,inf", ""])
def test_impossible_times_of_a_lock_are_one_line(given, monkeypatch):
    monkeypatch.setenv("ISOFLOP_LOCK", given)
    with pytest.raises(ValueError, match=r"ISOFLOP_LOCK=.* is not BEAT,TTL in seconds"):
        of_environment()
    monkeypatch.setenv("ISOFLOP_LOCK", "10,60")
    assert (of_environment().beat, of_environment().ttl) == (10, 60)


# Rows and logs.


def test_rows_of_an_owner_that_was_frozen_do_not_replace_those_of_the_next(served, folder, times):
    first = Mirrored(folder / "metrics.jsonl", take(folder, times, quiet))
    first.local.write_bytes(b"1\n")
    first.copy()
    second = Mirrored(folder / "metrics.jsonl", take(folder, times, quiet))
    assert second.local.read_bytes() == b"1\n"
    first.local.write_bytes(b"1\nold\n")
    with pytest.raises(LostLock):
        first.copy()
    with pytest.raises(LostLock):
        first.close()
    client(folder).put("gs://bucket/run/metrics.jsonl", b"1\nlate\n")  # sent before it was frozen
    second.local.write_bytes(b"1\n2\n")
    second.close()
    assert served.read("run/metrics.jsonl") == b"1\n2\n"


def test_a_log_grows_over_several_processes(served, folder):
    for text in (b"one\n", b"two\n"):
        with appending(folder / "log.txt") as file:
            file.write(text)
    assert served.read("run/log.txt") == b"one\ntwo\n"


def test_a_file_is_copied_seldom(served, folder):
    mirror = Mirrored(folder / "rows", every=0.2)
    began = time.monotonic()
    while time.monotonic() - began < 0.9:
        with open(mirror.local, "ab") as file:
            file.write(b"row\n")
        time.sleep(0.01)
    mirror.close()
    assert 2 <= served.counts["insert"] <= 6
    assert served.read("run/rows").count(b"row\n") > 20


# A folder of this machine.


def test_another_token_in_a_lock_file_is_a_lost_lock(tmp_path):
    with open(tmp_path / "lock", "a+") as file:
        held = lease.FileLease(tmp_path, lease.this_process(), file, Times(0.05, 1))
        held.confirm()
        before = (tmp_path / "lock").stat().st_mtime_ns
        time.sleep(0.2)
        assert (tmp_path / "lock").stat().st_mtime_ns > before  # the heartbeat
        other = Owner(7, "elsewhere", "other")
        write_atomic(tmp_path / "lock", other.content())
        with pytest.raises(LostLock, match="taken over by process 7 on elsewhere"):
            held.confirm()
        held.release()
        assert lease.parsed((tmp_path / "lock").read_bytes()) == other


def test_what_a_lock_says_is_safe_to_show():
    content = json.dumps({"process": "12", "host": "a\x1b]0;owned", "token": ["t"], "since": 1})
    found = lease.parsed(content.encode())
    assert found.process == 12 and str(found) == "process 12 on a\\x1b]0;owned"
    wrong = [b'{"process": "../x", "host": "a", "token": ""}', b'{"process": Infinity}']
    wrong += [b"[" * 100_000, b"process " + b"9" * 5_000 + b" on x", b"3", b""]
    assert {str(lease.parsed(content)) for content in wrong} == {"another process"}


def test_locks_that_do_not_reach_another_host_are_found(tmp_path, clock, times):
    """Its lock file is renewed although flock was granted: Held. One that rests is taken."""
    other = Owner(7, "elsewhere", "other", machine="boot/ns")
    (tmp_path / "lock").write_bytes(other.content())

    def renewed(seconds: float) -> None:
        clock.sleep(seconds)
        os.utime(tmp_path / "lock")

    with pytest.raises(Held, match="do not reach from host to host"):
        lease.require_silence(tmp_path, dataclasses.replace(times, sleep=renewed), quiet)
    lease.require_silence(tmp_path, times, quiet)
    assert os.listdir(tmp_path) == ["lock"]


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = scratch()
    stem = own.name.rsplit("-", 3)[0]
    for left in (f"{stem}-{os.getpid()}-1-x", f"{stem}-999999999-5-x", "isoflop-other-5-5-x"):
        (tmp_path / left).mkdir()
    _tidied.clear()
    again = scratch()
    assert sorted(os.listdir(tmp_path)) == sorted([own.name, again.name, "isoflop-other-5-5-x"])
