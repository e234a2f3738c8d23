"""How often the lock of a folder is renewed, when it is stale, and the clock that says so."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

BEAT, TTL = 10.0, 60.0  # seconds


def boottime() -> float:
    """Seconds on a clock that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Times:
    """Seconds between heartbeats, seconds of silence after which a lock is stale, and the clock and
    the pause that measure them."""

    beat: float = BEAT
    ttl: float = TTL
    clock: Callable[[], float] = boottime
    sleep: Callable[[float], None] = time.sleep

    @property
    def answer(self) -> float:
        """Seconds that a renewal waits for an answer. One that is never answered leaves time for
        several others before the lock is stale."""
        return self.ttl / 12


def of_environment() -> Times:
    """The times of this process. Tests set shorter ones: ISOFLOP_LOCK=BEAT,TTL. ValueError for
    what is not that."""
    given = os.environ.get("ISOFLOP_LOCK", f"{BEAT},{TTL}")
    try:
        beat, ttl = map(float, given.split(","))
    except ValueError:
        beat, ttl = 0.0, 0.0
    if not 0 < beat < ttl / 2 < math.inf:
        raise ValueError(
            f"ISOFLOP_LOCK={given!r} is not BEAT,TTL in seconds, with BEAT below half of TTL; use "
            f"ISOFLOP_LOCK={BEAT:.0f},{TTL:.0f}, or unset it"
        )
    return Times(beat, ttl)
