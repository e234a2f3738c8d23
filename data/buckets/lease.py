"""The lock of a folder: who may write in it, shown alive by a heartbeat.

In a bucket the lock is an object that its owner replaces every BEAT seconds. Each replacement names
the generation that it expects, so it fails once another has taken the lock. Another may take it
only after it has seen the same generation for TTL seconds on its own clock; clocks of two hosts are
never compared. An owner that was frozen meanwhile learns so before it writes: `confirm` renews a
lock that was last renewed more than TTL/2 ago.

On this machine, and on shared file systems, flock decides. The file is touched as a heartbeat, and
`confirm` reads whose it is.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from data.buckets.attempts import WITHIN, Changed, Unreachable
from data.buckets.times import Times
from data.buckets.versioned import client

LOCK = "lock"
SKEW = 60.0  # seconds that two clocks may differ without a word


class LostLock(Exception):
    """Another process has taken the lock of a folder: nothing may be written there any more."""


class Held(Exception):
    """Another process holds the lock of a folder; the text names it."""


@dataclass(frozen=True)
class Owner:
    """What a lock says about the process that holds it."""

    process: int
    host: str
    token: str
    since: float = 0.0  # seconds since 1970, by its own clock
    machine: str = ""  # the boot and the process namespace, within which process numbers are unique
    started: str = ""  # when the process started, in ticks after the boot
    beats: int = 0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.process else "another process"

    def content(self) -> bytes:
        return json.dumps(vars(self)).encode()

    @property
    def dead(self) -> bool:
        """Whether it was a process of this machine, which has ended."""
        return (
            bool(self.machine)
            and self.machine == machine() != ""
            and (self.started != started(self.process))
        )


def this_process() -> Owner:
    """This process as the owner of one more lock, with a token of its own."""
    pid, host = os.getpid(), socket.gethostname()
    return Owner(pid, host, secrets.token_hex(4), time.time(), machine(), started(pid))


def parsed(content: bytes) -> Owner:
    """The owner that a lock names. Locks of older versions say "process 12 on HOST"."""
    try:
        known = json.loads(content)
        kinds = {key: field.type for key, field in Owner.__dataclass_fields__.items()}
        return Owner(**{key: _safe(known[key], kinds[key]) for key in kinds if key in known})
    except (ValueError, TypeError, OverflowError, RecursionError):
        words = content.decode(errors="replace").split()
        named = re.fullmatch(r"process \d{1,9} on \S+", " ".join(words))
        return Owner(int(words[1]), _safe(words[3], str), "") if named else Owner(0, "", "")


def _safe(value: Any, kind: type) -> Any:
    """One field of a lock, converted to its type, with control characters escaped: anyone who can
    write to the folder can write a lock."""
    if kind is not str:
        return kind(value)
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return "".join(shown)


def machine() -> str:
    """The boot of this machine and the process namespace; "" where they are not known."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return ""


def started(process: int) -> str:
    """When a process of this machine started; "" if there is none, or it has ended as a zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Unlocked:
    """Stands for the lock of a folder that nobody else writes in, such as that of a test."""

    token = ""

    def confirm(self) -> None:
        """Nothing to confirm."""

    def check(self) -> None:
        """Nothing to check."""


class _Beating:
    """A lock that a thread renews every `times.beat` seconds."""

    def __init__(self, folder: Path, owner: Owner, times: Times):
        self.folder, self.owner, self.times = folder, owner, times
        self.token = owner.token
        self.lost = ""  # by whom
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lock", daemon=True)
        self._turn = threading.RLock()  # one renewal at a time

    def check(self) -> None:
        """LostLock if a heartbeat has found that another holds the lock. Asks nobody."""
        if self.lost:
            raise self._gone(self.lost)

    def _gone(self, taker: str) -> LostLock:
        self.lost = taker
        return LostLock(f"{self.folder} was taken over by {taker}")

    def confirm(self) -> None:
        """Returns if this process holds the lock, for long enough to begin a write; LostLock
        otherwise, and OSError where nobody can say so."""
        raise NotImplementedError

    def _beat(self) -> None:
        raise NotImplementedError

    def _beat_on(self) -> None:
        while not self._end.wait(self.times.beat):
            try:
                self._beat()
            except LostLock:
                return  # `check` and `confirm` say so
            except OSError:
                continue  # the next one may get through; `confirm` asks again

    def _stop(self) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join(5)


class BucketLease(_Beating):
    """The lock of a folder in a bucket, held."""

    def __init__(self, folder: Path, owner: Owner, version: str, at: float, times: Times):
        super().__init__(folder, owner, times)
        self._url, self._store = os.fspath(folder / LOCK), client(folder)
        self._version, self._at = version, at
        self._thread.start()

    def confirm(self) -> None:
        with self._turn:
            self.check()
            until = time.monotonic() + WITHIN
            while self.times.clock() - self._at > self.times.ttl / 2:
                try:
                    self._beat()
                except Unreachable:
                    if time.monotonic() > until:
                        raise

    def _beat(self) -> None:
        with self._turn:
            self.check()
            at = self.times.clock()
            self.owner = Owner(**vars(self.owner) | {"beats": self.owner.beats + 1})
            content, within = self.owner.content(), self.times.answer
            while True:  # with a lock that it has seen to be its own
                try:
                    self._version = self._store.put(self._url, content, self._version, within)
                    break
                except Changed:
                    self._catch_up(within)
            self._at = at

    def _catch_up(self, within: float) -> None:
        """Learns the version of the lock after a renewal whose answer was lost; LostLock if the
        lock is another's."""
        try:
            content, version = self._store.get(self._url, within)
            found = parsed(content)
        except FileNotFoundError:
            found, version = "another process, which has left it since", ""
        if not version or found.token != self.token:
            raise self._gone(str(found))
        self._version = version

    def release(self) -> None:
        """Removes the lock, if it is still this process's."""
        self._stop()
        with self._turn, contextlib.suppress(Changed, OSError):
            if not self.lost:
                self._store.remove(self._url, self._version, self.times.ttl / 2)


class FileLease(_Beating):
    """The lock of a folder on a file system, held: `file` has flock."""

    def __init__(self, folder: Path, owner: Owner, file: IO, times: Times):
        super().__init__(folder, owner, times)
        self._file = file
        file.seek(0)
        file.truncate(0)
        file.write(owner.content().decode())
        file.flush()
        self._thread.start()

    def confirm(self) -> None:
        self.check()
        try:
            found = parsed((self.folder / LOCK).read_bytes())
        except FileNotFoundError:
            raise LostLock(f"{self.folder / LOCK} was removed") from None
        if found.token != self.token:
            raise self._gone(str(found))

    def _beat(self) -> None:
        self.confirm()
        os.utime(self._file.fileno())

    def release(self) -> None:
        """Empties the file, which the next owner takes; flock ends when it is closed."""
        self._stop()
        with contextlib.suppress(OSError, LostLock):
            self.confirm()
            self._file.truncate(0)


def require_silence(folder: Path, times: Times, say: Callable[[str], None] = print) -> None:
    """Held if the process of another host still renews the lock of a folder that this process has
    locked: then locks of that file system do not reach from host to host."""
    file = folder / LOCK
    content = file.read_bytes()
    found = parsed(content)
    if not found.token or found.machine.partition("/")[0] == machine().partition("/")[0]:
        return
    at = file.stat().st_mtime_ns
    now = folder / f"{LOCK}.{os.getpid()}{secrets.randbelow(10**9):09}.tmp"
    now.touch()  # by the clock of the file system
    silent = (now.stat().st_mtime_ns - at) / 1e9
    now.unlink()
    if silent >= times.ttl:
        return
    say(f"{folder} was locked by {found} {silent:.0f} s ago; watching whether it is alive")
    until = times.clock() + 2 * times.beat
    while times.clock() < until:
        if (file.stat().st_mtime_ns, file.read_bytes()) != (at, content):
            raise Held(
                f"{found}, although its lock did not keep this process out: locks of this "
                "file system do not reach from host to host"
            )
        times.sleep(times.beat / 5)


Lease = Unlocked | BucketLease | FileLease

_seen: dict[str, tuple[str, float]] = {}  # lock -> (its version, since when this process sees it)


def watched(folder: Path, times: Times) -> tuple[Owner, str, float] | None:
    """(owner, version, seconds of silence that this process has seen) of the lock of a folder in a
    bucket; None if nobody holds it."""
    url = os.fspath(folder / LOCK)
    try:
        content, version, _ = client(folder).look(url)
    except FileNotFoundError:
        _seen.pop(url, None)
        return None
    now = times.clock()
    if _seen.get(url, ("", 0.0))[0] != version:
        _seen[url] = version, now
    return parsed(content), version, now - _seen[url][1]


def seen(folder: Path, times: Times) -> tuple[Owner, float] | None:
    """(owner, seconds since its last heartbeat by the server's clock) of the lock of a folder in a
    bucket, asked once; None if nobody holds it. For display: who takes a lock has to watch it."""
    try:
        content, _, age = client(folder).look(os.fspath(folder / LOCK))
    except FileNotFoundError:
        return None
    return parsed(content), age or 0.0


def stale(owner: Owner, silent: float, times: Times) -> bool:
    """Whether a lock may be taken from its owner."""
    return owner.dead or silent >= times.ttl


def take(
    folder: Path, times: Times, say: Callable[[str], None] = print, wait: bool = True
) -> BucketLease:
    """Takes the lock of a folder in a bucket. Held if another process renews it. A lock that
    nobody renews is taken after `times.ttl` seconds, for which this waits, or else Held."""
    store, url, me, first = client(folder), os.fspath(folder / LOCK), this_process(), ""
    while True:
        at, held = times.clock(), watched(folder, times)
        if held is None or stale(held[0], held[2], times):
            try:
                version = store.put(url, me.content(), held[1] if held else "")
            except Changed:
                continue
            version = _require_preconditions(url, me.content(), version)
            _warn_of_skew(store.skew, say)
            return BucketLease(folder, me, version, at, times)
        if not wait or (first and held[1] != first):
            raise Held(str(held[0]))
        if not first:
            first = held[1]
            say(
                f"{folder} is locked by {held[0]}; watching for {times.ttl:.0f} s whether it is "
                "alive"
            )
        times.sleep(times.beat / 5)


_keep_out: set[str] = set()  # buckets whose preconditions are known to work


def _require_preconditions(url: str, content: bytes, version: str) -> str:
    """OSError for a store that creates an object which is there: none of its writes would be
    refused. Asked once for each bucket, of the lock that this process has just created, which is
    created again if it has been removed meanwhile. Returns its version."""
    bucket = url[: url.index("/", len("gs://")) + 1]
    if bucket in _keep_out:
        return version
    for _ in range(2):
        try:
            version = client(url).put(url, content + b" ", "")
        except Changed:
            _keep_out.add(bucket)
            return version
    raise OSError(
        errno.ENOLCK,
        f"{bucket} ignores preconditions, so it cannot keep two processes apart: use a store that "
        "has them (ifGenerationMatch, If-None-Match)",
    )


def break_stale(folder: Path, times: Times) -> str:
    """Removes the lock of a folder in a bucket if its owner is dead or silent for too long, as
    `watched` has seen; the owner, or "". An owner that wakes up later finds its lock gone."""
    held = watched(folder, times)
    if held is None or not stale(held[0], held[2], times):
        return ""
    with contextlib.suppress(Changed):
        client(folder).remove(os.fspath(folder / LOCK), held[1])
        return str(held[0])
    return ""


_warned: list[bool] = []


def _warn_of_skew(skew: float, say: Callable[[str], None]) -> None:
    """One line, once, if this machine's clock and the bucket's differ. Locks do not mind."""
    if abs(skew) > SKEW and not _warned:
        _warned.append(True)
        way = "behind" if skew > 0 else "ahead of"
        say(
            f"warning: the clock of this machine is {abs(skew):.0f} s {way} that of the bucket; "
            "locks do not depend on it, but times in results do: set it by NTP"
        )
