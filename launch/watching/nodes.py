"""What a sweep does now, on all machines: who trains which trial, what is left, what it cost."""

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from data.buckets import lease
from data.buckets.times import of_environment
from data.files import is_remote
from launch.trial.owner import with_running
from launch.watching.runs_folder import read_at
from scaling.ranking.trials import Sweep, Trial

HELD = ("unfinished", "waiting", "running")  # the statuses of trials that have not ended


@dataclass(frozen=True)
class Holder:
    """The process that has the lock of a trial."""

    node: str  # the name of its host, safe to print; "" if the lock names none
    process: int
    age: float  # seconds since its last heartbeat, by the clock of the store


@dataclass(frozen=True)
class Standing:
    """Where a sweep stands. Unknown numbers are None."""

    holders: Mapping[str, Holder] = field(default_factory=dict)  # by the id of a running trial
    counts: Mapping[str, int] = field(default_factory=dict)  # trials by status
    left_seconds: float | None = None  # until all trials have ended, at the rate of those that have
    goodput: float | None = None  # share of the time that went to training
    device_hours: float | None = None

    @property
    def nodes(self) -> dict[str, list[Holder]]:
        """The holders on each node."""
        found: dict[str, list[Holder]] = {}
        for holder in self.holders.values():
            found.setdefault(holder.node, []).append(holder)
        return dict(sorted(found.items()))


def as_it_runs(sweep: Sweep) -> Sweep:
    """The sweep with the status "running" for trials that a process trains now: on this machine by
    their locks, in a bucket by a heartbeat that is younger than `Times.ttl`."""
    if not is_remote(sweep.folder):
        return with_running(sweep)
    trials = (
        replace(t, status="running") if t.status in HELD and _beats(holder(t)) else t
        for t in sweep.trials
    )
    return replace(sweep, trials=tuple(trials))


def _beats(held: Holder | None) -> bool:
    return held is not None and held.age <= of_environment().ttl


def standing(sweep: Sweep) -> Standing:
    """Where a sweep, `as_it_runs`, stands, from its folder alone."""
    found = {trial.id: holder(trial) for trial in sweep.trials if trial.status == "running"}
    holders = {key: held for key, held in found.items() if held is not None}
    spent = [parts for trial in sweep.trials if (parts := _spent(trial))]
    wall = sum(seconds for seconds, _, _ in spent)
    return Standing(
        holders,
        Counter(trial.status for trial in sweep.trials),
        _left(sweep, len(holders)),
        sum(trained for _, trained, _ in spent) / wall if wall else None,
        sum(seconds * devices for seconds, _, devices in spent) / 3600 if spent else None,
    )


def holder(trial: Trial) -> Holder | None:
    """Who has, or had, the lock in a trial's folder; None if nobody has taken it."""
    file = trial.folder / "lock"
    try:
        content, about = file.read_bytes(), file.stat()
    except OSError:
        return None
    owner = lease.parsed(content)
    return Holder(owner.host, owner.process, max(0.0, read_at(trial.folder) - about.st_mtime))


def _spent(trial: Trial) -> tuple[float, float, int] | None:
    """(wall seconds, those that went to training, devices) of a trial until now; None if it has not
    begun or says nothing of it. Trials of older versions have the seconds of training alone."""
    devices = int(trial.result.get("devices") or 1)
    if ledger := trial.result.get("goodput"):
        return ledger["wall_seconds"], ledger["seconds"]["train"], devices
    try:
        seconds = json.loads((trial.folder / "ledger.json").read_bytes())["seconds"]
        return sum(seconds.values()), seconds["train"], devices
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    if trial.result.get("seconds"):
        trained = float(trial.result["seconds"])
        return trained + float(trial.result.get("compile_seconds") or 0.0), trained, devices
    return None


def _left(sweep: Sweep, running: int) -> float | None:
    """Seconds until the trials that have not ended will have: their number times the median time of
    those that have, on as many slots as run now. Progress of running trials is not subtracted."""
    ended = [t.result for t in sweep.trials if t.status == "done"]
    times = [float(result.get("seconds") or 0) for result in ended]
    walls = [result["goodput"]["wall_seconds"] for result in ended if result.get("goodput")]
    left = sum(trial.status in HELD for trial in sweep.trials)
    if not left or not running or not any(times):
        return 0.0 if not left else None
    return statistics.median(walls or times) * -(-left // running)


def to_json(found: Standing, price: float | None) -> dict[str, Any]:
    """What --json says."""
    return {
        "counts": dict(found.counts),
        "nodes": {
            node: {"trials": len(held), "heartbeat_seconds": min(one.age for one in held)}
            for node, held in found.nodes.items()
        },
        "left_seconds": found.left_seconds,
        "goodput": found.goodput,
        "device_hours": found.device_hours,
        "cost": cost(found, price),
    }


def cost(found: Standing, price: float | None) -> float | None:
    """What a sweep has cost until now at `price` a device-hour; None if either is unknown."""
    known = price is not None and found.device_hours is not None
    return price * found.device_hours if known else None


def lines(found: Standing, price: float | None, clock: Any) -> Sequence[str]:
    """What stands under the table of a sweep that is being trained, or that has a price.
    `clock` writes seconds."""
    shown = []
    if found.holders:
        on = ", ".join(
            f"{node or 'an unknown host'} ({len(held)}, heartbeat "
            f"{min(one.age for one in held):.0f} s ago)"
            for node, held in found.nodes.items()
        )
        nodes = len(found.nodes)
        shown.append(
            f"{len(found.holders)} running on {nodes} node{'s' * (nodes != 1)}: {on}"
            + (f"; about {clock(found.left_seconds)} left" if found.left_seconds else "")
        )
    if found.device_hours is not None and (found.holders or price is not None):
        parts = [f"{found.device_hours:.3g} device-hours until now"]
        if found.goodput is not None:
            parts.append(f"goodput {found.goodput:.1%}")
        if price is not None:
            parts.append(f"cost {cost(found, price):,.2f} at {price:g} a device-hour")
        shown.append(", ".join(parts))
    return shown
