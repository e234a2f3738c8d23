"""The unit of work everywhere: a config goes in, a folder with result.json comes out.

RUNS/SWEEP/TRIAL/ holds config.json (resolved), metrics.jsonl, checkpoints/ and, written last,
result.json. A trial whose result says "done" is not run again; any other trial resumes.
"""

import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data.kinds import Dataset
from launch.errors import BAD_INPUT, DIVERGED, DONE, PREEMPTED, BadInput, bad_input, disk_full
from launch.files import read_json, write_json
from launch.trial import distributed, trunk
from launch.trial.identity import identity, own_id
from launch.trial.resolve import chunk_steps, describe, prepare, resolve
from launch.trial.result import summarise
from model import families
from train.flatten import difference
from train.parallel import processes
from train.watch import Stop, stop_signals

EXIT_CODES = {"done": DONE, "preempted": PREEMPTED, "diverged": DIVERGED}


def run(config: ConfigDict, workdir: str | Path, overrides: Mapping[str, Any] | None = None) -> int:
    """Trains the trial in `workdir` unless it is done there; returns the exit code.

    `overrides` is what a sweep changed; it is copied into result.json. Bad input is one line on
    stderr.
    """
    act = functools.partial(_run, config, Path(workdir), dict(overrides or {}))
    return guarded(act, Path(workdir))


def guarded(act: Callable[[Stop], int], workdir: Path) -> int:
    """The exit code of `act`, which learns when to stop; what a user can mend is one line."""
    try:
        with stop_signals(joint=processes.count() > 1) as stop:
            return act(stop)
    except BadInput as error:
        print(f"isoflop: {error}", file=sys.stderr)
    except OSError as error:
        if not disk_full(error):
            raise
        print(
            f"isoflop: no space left in {workdir}; the last good checkpoint is kept: "
            "free some and run this again",
            file=sys.stderr,
        )
    return BAD_INPUT


def _run(config: ConfigDict, workdir: Path, overrides: dict, stop: Stop) -> int:
    import jax

    # Slow imports, which planning a sweep does without.
    from train.checkpoint import Damaged, finished
    from train.parallel.mesh import MeshError

    with distributed.together() as equal, bad_input():
        dataset = prepare(config, progress=processes.is_first())
        resolved, ended, branch = opened(config, workdir, dataset, jax.device_count())
        dataset = dataset.for_run(resolved)
        resolved.train.chunk = resolved.train.chunk or chunk_steps(resolved)
        kept = [path.name for path in finished(workdir / "checkpoints")]
        equal |= distributed.shared_keys(json.loads(resolved.to_json()))
        equal |= {"--workdir": str(workdir), "its checkpoints": kept, "its status": ended}
    if ended:
        print(f"{workdir} holds the result already: {ended}")
        return EXIT_CODES[ended]
    try:
        training = _trainer(resolved, dataset, workdir, branch)
    except (MeshError, Damaged) as error:
        raise BadInput(error) from error
    begin(resolved, workdir, dataset)
    with distributed.together(), bad_input():
        distributed.require_shared(workdir / "config.json")
    status = training.train(stop)
    end(resolved, dataset, getattr(training, "record", training), overrides, status)
    return EXIT_CODES[status]


def _trainer(resolved: ConfigDict, dataset: Dataset, workdir: Path, branch: int) -> Any:
    """What trains or counts the model; `train(stop)` gives the status."""
    if families.is_counted(families.find(resolved.model.family)):
        from train.counting import Count

        return Count(resolved, dataset, workdir)
    from launch.trial import start
    from train.loop import Run

    with bad_input():
        beginning = start.start(resolved)
    return Run(resolved, dataset, workdir, branch_until=branch, start=beginning)


def opened(
    config: ConfigDict, workdir: Path, dataset: Dataset, devices: int
) -> tuple[ConfigDict, str, int]:
    """(the resolved config, its status if it has ended in `workdir`, the step until which it may
    branch from its trunk). ValueError where it cannot be trained there."""
    from train.checkpoint import finished

    resolved = resolve(config, dataset, devices)
    _check_same(resolved, read_json(workdir / "config.json"), workdir)
    result = read_json(workdir / "result.json")
    if result and result["status"] in ("done", "diverged"):
        return resolved, result["status"], 0
    fresh = resolved.checkpoint.trunk and not finished(workdir / "checkpoints")
    return resolved, "", trunk.branch_until(resolved) if fresh else 0


def begin(resolved: ConfigDict, workdir: Path, dataset: Dataset) -> None:
    """Writes what a run is, before it trains."""
    if not processes.is_first():
        return
    write_json(workdir / "config.json", json.loads(resolved.to_json()))
    dataset.save(workdir)


def end(resolved: ConfigDict, dataset: Dataset, record: Any, overrides: dict, status: str) -> None:
    """Writes result.json, unless the run was preempted and goes on later."""
    if status == "preempted" or not processes.is_first():
        return
    about = describe(resolved, dataset) | {"id": own_id(resolved, record.workdir)}
    of_sweep = {"sweep": record.workdir.parent.name, "overrides": overrides, "status": status}
    result = summarise(about, resolved, dataset, record)
    write_json(record.workdir / "result.json", result | of_sweep)


def _check_same(resolved: ConfigDict, there: dict | None, workdir: Path) -> None:
    """ValueError, naming the first key that differs, if the config there is another trial's."""
    if there is None:
        return
    if differs := difference(identity(there), identity(resolved)):
        raise ValueError(
            f"workdir={workdir} holds another config's run: {differs}; choose another --workdir"
        )
