"""Tries a request to a bucket again where that helps, for a bounded time."""

import errno
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

WITHIN = 120.0  # seconds that a request may take with all its attempts
_SHORTEST = 0.05  # seconds that an attempt waits for an answer, at least
_FIRST, _LONGEST = 0.2, 8.0  # seconds between attempts: doubled each time, up to the longest
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
"""Status codes after which a store wants to be asked again."""


class Changed(Exception):
    """An object or file is not in the version that a write expected: another has written it."""


class Transient(Exception):
    """A request failed in a way that another attempt may not."""


class Unreachable(TimeoutError):
    """A bucket has not answered for a while; the same command may succeed later."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}" if self.filename else str(self.strerror)


@dataclass(frozen=True)
class Listed:
    """What a bucket says about one object."""

    size: int  # bytes
    checksum: str  # of its content: "crc32c:…" or "etag:…"
    version: str


def attempts(
    url: str, within: float = WITHIN, sleep: Callable[[float], None] = time.sleep
) -> Iterator["Attempt"]:
    """The attempts of one request, each a context manager that swallows Transient. The caller
    leaves the loop when one succeeds. Unreachable, an OSError, after `within` seconds."""
    until, pause = time.monotonic() + within, _FIRST
    for number in itertools.count():
        attempt = Attempt(number, until)
        yield attempt
        left = until - time.monotonic()
        if left <= 0:
            raise Unreachable(
                errno.ETIMEDOUT,
                f"{url} did not answer within {within:.0f} s ({attempt.fault}); check the network "
                "and that the bucket is there",
            )
        sleep(min(left, pause * random.uniform(0.5, 1)))
        pause = min(2 * pause, _LONGEST)


class Attempt:
    """One attempt; `number` is 0 for the first."""

    def __init__(self, number: int, until: float):
        self.number, self.fault, self._until = number, "", until

    def at_most(self, seconds: float) -> float:
        """`seconds`, or what is left for all attempts if that is less: how long to wait for the
        answer to this one."""
        return max(_SHORTEST, min(seconds, self._until - time.monotonic()))

    def __enter__(self) -> "Attempt":
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self.fault = str(error)
        return isinstance(error, Transient)
