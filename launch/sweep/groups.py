"""Trains trials of a sweep in groups: stacked in one process, each in its own folder.

Trials that differ in numbers alone make a group. An accelerator trains many small models as fast as
one; a CPU core does not, so there are no groups on CPUs unless they are asked for.
"""

import contextlib
import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from ml_collections import ConfigDict

from data.atomic import lock
from data.buckets.lease import LostLock
from data.buckets.mirrored import appending
from data.files import is_remote
from launch.config import imports
from launch.errors import DONE, IN_USE, PREEMPTED, BadInput, InUse, bad_input
from launch.trial import run as trial
from launch.trial.chunk import chunk_steps
from launch.trial.resolve import prepare
from train.stacked import stackable
from train.watch import Stop

MOST = 128  # trials of a group where none is asked for; memory may allow fewer at a time

Trial = tuple[ConfigDict, Path, Mapping[str, Any]]
"""The arguments of `trial.run`."""


def most(population: str, platform: str) -> int:
    """Trials of a group by the flag --population: 'auto', 'off' or a number; 1 means no groups."""
    known = {"auto": 1 if platform == "cpu" else MOST, "off": 1}
    if population in known:
        return known[population]
    if not population.isdecimal() or int(population) < 1:
        raise ValueError(f"population={population} is not a number of trials; use auto, off or 16")
    return int(population)


def groups(trials: Sequence[Any], most: int, slots: int) -> list[list[Any]]:
    """The planned trials in groups of at most `most`, the costliest group first.

    Groups are as large as they can be without leaving one of `slots` slots idle.
    """
    kinds: dict[str, list[Any]] = {}
    for planned in trials:
        alone = most == 1 or stackable.trains_alone(planned.config)
        kind = planned.id if alone else json.dumps(stackable.common(planned.config), sort_keys=True)
        kinds.setdefault(kind, []).append(planned)
    parts = -(-slots // max(1, len(kinds)))  # of each kind
    found = []
    for kind in kinds.values():
        size = min(most, -(-len(kind) // parts))
        kind = sorted(kind, key=lambda planned: planned.id)
        found += [kind[first : first + size] for first in range(0, len(kind), size)]
    return sorted(found, key=lambda group: -sum(planned.cost for planned in group))


def run(trials: Sequence[Trial]) -> int:
    """Trains the trials that have not ended, stacked; one by itself is `trial.run`.

    The exit code is 0 when all have ended, well or not: each result.json says which. It is IN_USE
    if another process has taken the folder of one meanwhile; that trial alone then has no result.
    """
    begun = time.time()
    try:
        if len(trials) == 1:
            return trial.run(*trials[0])
        with _locked([workdir / "log.txt" for _, workdir, _ in trials[1:]]) as logs:
            with contextlib.ExitStack() as held:
                act = functools.partial(_run, trials, logs, held, begun)
                return trial.guarded(act, trials[0][1].parent)
    except InUse:
        return IN_USE


def run_one(config: ConfigDict, workdir: Path, overrides: Mapping[str, Any]) -> int:
    """Trains one trial; the exit code is IN_USE if another process holds its folder."""
    return run([(config, workdir, overrides)])


def _run(
    trials: Sequence[Trial],
    logs: Mapping[Path, IO],
    held: contextlib.ExitStack,
    begun: float,
    stop: Stop,
) -> int:
    # Slow imports, which planning a sweep does without.
    import jax

    from train.checkpoint import Damaged
    from train.parallel.mesh import MeshError
    from train.stacked.population import LOST, Member, Population

    going, members = [], []
    with bad_input():
        for config, workdir, _ in trials:
            imports.execute(config, (workdir, workdir.parent))
        dataset = prepare(trials[0][0])
        for config, workdir, overrides in trials:
            resolved, status, branch = trial.opened(config, workdir, dataset, devices=1)
            if not status:
                lease = held.enter_context(trial.claimed(config, resolved, workdir))
                going.append((resolved, overrides, lease))
                say = functools.partial(_say, workdir / "log.txt", logs)
                members.append(Member(resolved, workdir, say, branch, lease, begun))
    if not members:
        return DONE
    dataset = dataset.for_run(members[0].config)
    lanes = -(-len(going) // jax.local_device_count())
    for resolved, *_ in going:
        resolved.train.chunk = resolved.train.chunk or chunk_steps(resolved, lanes=lanes)
    try:
        population = Population(members, dataset)
    except (MeshError, Damaged) as error:
        raise BadInput(error) from error
    for member, (_, _, lease) in zip(members, going, strict=True):
        trial.begin(member.config, member.workdir, dataset, lease)
        member.say(f"trained with {len(members) - 1} others; {trials[0][1] / 'log.txt'} has more")
    statuses = population.train(stop)
    lost, ended = LOST in statuses, zip(going, population.records, statuses, strict=True)
    for (resolved, overrides, lease), record, status in ended:
        if status == LOST:
            continue
        try:
            trial.end(resolved, dataset, record, dict(overrides), status, lease)
        except LostLock as error:
            record.say(f"{error}; this process writes nothing more there")
            lost = True
    return PREEMPTED if "preempted" in statuses else IN_USE if lost else DONE


def _say(log: Path, logs: Mapping[Path, IO], line: str) -> None:
    """Adds a line to the log of one trial, which for the first one is where the output goes."""
    if log in logs:
        logs[log].write(f"{line}\n".encode())
    elif is_remote(log):
        print(line, flush=True)
    else:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


@contextlib.contextmanager
def _locked(logs: Sequence[Path]) -> Iterator[dict[Path, IO]]:
    """Holds the logs as `workers` holds that of the first trial, and yields them: no other sweep
    trains these meanwhile. InUse if another does. In a bucket the locks of the trials alone do
    that: a log there is a copy of this process's own."""
    with contextlib.ExitStack() as files:
        found = {log: files.enter_context(appending(log)) for log in logs}
        for log, file in found.items():
            if not is_remote(log) and lock(file) is False:
                raise InUse(f"another sweep trains {log.parent}")
        yield found
