"""The unit of work everywhere: a config goes in, a folder with result.json comes out.

RUNS/SWEEP/TRIAL/ holds config.json (resolved), metrics.jsonl, checkpoints/ and, written last,
result.json. A trial whose result says "done" is not run again; any other trial resumes.
"""

import contextlib
import errno
import functools
import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data.buckets.lease import Lease, LostLock, Unlocked
from data.files import to_path
from data.kinds import Dataset
from launch.config import imports
from launch.errors import (
    BAD_INPUT,
    DIVERGED,
    DONE,
    IN_USE,
    PREEMPTED,
    BadInput,
    InUse,
    bad_input,
    disk_full,
)
from launch.files import AGAIN, ended, read_json, write_json, write_once
from launch.trial import distributed, fingerprint, folder, messages, trunk
from launch.trial.chunk import chunk_steps
from launch.trial.identity import own_id
from launch.trial.resolve import describe, prepare, resolve
from launch.trial.result import so_far, summarise
from model import families
from model.keys import Unfit
from train.parallel import processes
from train.watch import Stop, stop_signals

EXIT_CODES = {"done": DONE, "stopped": DONE, "preempted": PREEMPTED, "diverged": DIVERGED}


def run(
    config: ConfigDict,
    workdir: str | Path,
    overrides: Mapping[str, Any] | None = None,
    begun: float | None = None,
) -> int:
    """Trains the trial in `workdir` unless it is done there; returns the exit code.

    `overrides` is what a sweep changed; it is copied into result.json. `begun` is the Unix time
    from which the goodput ledger counts this process; None: now. Bad input is one line on stderr.
    """
    act = functools.partial(
        _run, config, to_path(workdir), dict(overrides or {}), begun or time.time()
    )
    return guarded(act, to_path(workdir))


def guarded(act: Callable[[Stop], int], workdir: Path) -> int:
    """The exit code of `act`, which learns when to stop; what a user can mend is one line. IN_USE
    if another process takes the folder meanwhile, PREEMPTED if its bucket does not answer: then
    this process leaves others of its run. Raises InUse if another process holds it before."""
    try:
        with stop_signals(joint=processes.count() > 1) as stop:
            return act(stop)
    except InUse:  # the caller says so, and a sweep returns to it
        raise
    except LostLock as error:
        print(f"isoflop: {error}; this process stops and writes nothing more", file=sys.stderr)
        return distributed.alone(IN_USE)
    except BadInput as error:
        if _no_answer(error.__cause__):
            return _unanswered(error.__cause__)
        print(*filter(None, (f"isoflop: {error}", error.details)), sep="\n", file=sys.stderr)
    except OSError as error:
        if _no_answer(error):
            return _unanswered(error)
        if error.errno == errno.EROFS:
            print(
                f"isoflop: {workdir} cannot be written any more ({error.strerror})", file=sys.stderr
            )
            return BAD_INPUT
        if not disk_full(error):
            raise
        kept = "the last good checkpoint is kept; " if _has_checkpoint(workdir) else ""
        print(
            f"isoflop: no space left in {workdir}; {kept}free some and run this again",
            file=sys.stderr,
        )
    return BAD_INPUT


def _no_answer(error: BaseException | None) -> bool:
    """Whether a bucket has not answered for so long that this process gives up."""
    return isinstance(error, TimeoutError) and error.errno == errno.ETIMEDOUT


def _unanswered(error: OSError) -> int:
    print(f"isoflop: {error}; run this again, it goes on from the last checkpoint", file=sys.stderr)
    return distributed.alone(PREEMPTED)


def _has_checkpoint(workdir: Path) -> bool:
    """Whether a trial, or a trial of a sweep, can resume from a checkpoint."""
    from train.checkpoint import finished  # slow to import

    return any(map(finished, (*workdir.glob("checkpoints"), *workdir.glob("*/checkpoints"))))


def _run(config: ConfigDict, workdir: Path, overrides: dict, begun: float, stop: Stop) -> int:
    import jax

    # Slow imports, which planning a sweep does without.
    from train.checkpoint import Damaged, finished
    from train.parallel.mesh import MeshError
    from train.policy.rollouts import BadReward

    with distributed.together() as equal, bad_input():
        imports.execute(config, (workdir, workdir.parent))
        dataset = prepare(config, progress=processes.is_first())
        resolved, status, branch = opened(config, workdir, dataset, jax.device_count(), overrides)
        dataset = dataset.for_run(resolved)
        resolved.train.chunk = resolved.train.chunk or chunk_steps(resolved)
        kept = [path.name for path in finished(workdir / "checkpoints")]
        equal |= distributed.shared_keys(json.loads(resolved.to_json()))
        equal |= {"--workdir": str(workdir), "its checkpoints": kept, "its status": status}
    if status:
        result = read_json(workdir / "result.json", AGAIN)
        _say([fingerprint.warning(workdir, True), *messages.again(resolved, workdir, result)])
        return EXIT_CODES[status]
    with contextlib.ExitStack() as held:
        lease = Unlocked()
        with distributed.together(), bad_input():
            if processes.is_first():
                lease = held.enter_context(claimed(config, resolved, workdir, overrides))
        _say([fingerprint.warning(workdir, False), *messages.header(resolved, dataset, workdir)])
        try:
            training = _trainer(resolved, dataset, workdir, branch, lease, begun)
        except (MeshError, Damaged) as error:
            raise BadInput(error) from error
        _say(messages.memory(getattr(training, "memory", {})))
        begin(resolved, workdir, dataset, lease)
        with distributed.together(), bad_input():
            distributed.require_shared(workdir / "config.json")
        try:
            status = training.train(stop)
        except (BadReward, Unfit) as error:
            raise BadInput(error) from error
        record = getattr(training, "record", training)
        end(resolved, dataset, record, overrides, status, lease)
        if status == "preempted":
            _say(messages.stopped(resolved, workdir))
        elif processes.is_first():
            _say(messages.summary(resolved, workdir, read_json(workdir / "result.json", AGAIN)))
    return EXIT_CODES[status]


def _say(lines: Iterable[str]) -> None:
    """Prints the lines that are not empty, in the first process."""
    if processes.is_first():
        print("\n".join(filter(None, lines)), flush=True)


def dry_run(config: ConfigDict, workdir: str | Path, overrides: Mapping[str, Any]) -> int:
    """Prints what `run` would train, or what is there already, and writes nothing but token shards;
    the exit code. Refuses what `run` refuses."""
    import jax

    workdir = to_path(workdir)
    with bad_input():
        dataset = prepare(config)
        resolved, status, _ = opened(config, workdir, dataset, jax.device_count(), overrides)
        dataset = dataset.for_run(resolved)
    if status:
        _say(messages.again(resolved, workdir, read_json(workdir / "result.json", AGAIN)))
    else:
        _say(messages.header(resolved, dataset, workdir))
    return DONE


def _trainer(
    resolved: ConfigDict,
    dataset: Dataset,
    workdir: Path,
    branch: int,
    lease: Lease,
    begun: float,
) -> Any:
    """What trains or counts the model; `train(stop)` gives the status."""
    if families.is_counted(families.find(resolved.model.family)):
        from train.counting import Count

        if processes.count() > 1:
            raise BadInput(
                f"model.family={resolved.model.family!r} is counted by one process; use "
                "--processes=1"
            )

        return Count(resolved, dataset, workdir, lease=lease)
    from launch.trial import start
    from train.loop import Run
    from train.objectives.preference import stored

    with bad_input():
        beginning = start.start(resolved)
        dataset, beginning = stored.with_stored(resolved, dataset, beginning)
    return Run(
        resolved, dataset, workdir, branch_until=branch, start=beginning, lease=lease, begun=begun
    )


def opened(
    config: ConfigDict,
    workdir: Path,
    dataset: Dataset,
    devices: int,
    given: Collection[str] = (),
) -> tuple[ConfigDict, str, int]:
    """(the resolved config, its status if it has ended in `workdir`, the step until which it may
    branch from its trunk). `given` holds the keys of the command line. ValueError where it cannot
    be trained there."""
    from train.checkpoint import finished

    resolved = resolve(config, dataset, devices)
    folder.require_same(config, resolved, workdir, given)
    if status := ended(workdir):
        return resolved, status, 0
    fresh = resolved.checkpoint.trunk and not finished(workdir / "checkpoints")
    return resolved, "", trunk.branch_until(resolved) if fresh else 0


@contextlib.contextmanager
def claimed(
    config: ConfigDict, resolved: ConfigDict, workdir: Path, given: Collection[str] = ()
) -> Iterator[Lease]:
    """Holds the folder of a trial that was `opened`; yields its lock. InUse where another run holds
    it, or has finished it since."""
    with folder.locked(workdir) as lease:
        folder.require_same(config, resolved, workdir, given)
        if ended(workdir):
            raise InUse(f"another run has just finished in --workdir={workdir}; run this again")
        yield lease


def begin(resolved: ConfigDict, workdir: Path, dataset: Dataset, lease: Lease) -> None:
    """Writes what a run is, before it trains."""
    if not processes.is_first():
        return
    about = json.loads(resolved.to_json()) | {"code": fingerprint.record(workdir)}
    lease.confirm()
    write_json(workdir / "config.json", about)
    lease.confirm()
    imports.keep(resolved, workdir)
    lease.confirm()
    dataset.save(workdir)


def end(
    resolved: ConfigDict,
    dataset: Dataset,
    record: Any,
    overrides: dict,
    status: str,
    lease: Lease,
) -> None:
    """Writes result.json, unless the run was preempted and goes on later. LostLock if another
    process holds the folder, or has written a result since."""
    if status == "preempted" or not processes.is_first():
        return
    about = describe(resolved, dataset) | {"id": own_id(resolved, record.workdir)}
    code = fingerprint.record(record.workdir)
    about |= {"code": {key: code[key] for key in ("fingerprint", "earlier")}}
    of_sweep = {"sweep": record.workdir.parent.name, "overrides": overrides, "status": status}
    result = summarise(about, resolved, dataset, record)
    if status == "stopped":
        result |= so_far(result, resolved, dataset, record.step)
    if not about["counted"]:
        of_sweep["goodput"] = record.ledger.result()  # last, to count all of the time
    write_once(record.workdir / "result.json", result | of_sweep, lease)
