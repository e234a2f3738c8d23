"""Runs the trials of a sweep on a machine, stage by stage, and keeps their states and results."""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data.buckets import lease
from data.buckets.times import of_environment
from data.files import is_remote, path_of
from launch.errors import BUG, DIVERGED, DONE, IN_USE, PREEMPTED, bad_input
from launch.files import AGAIN, ended, read_json, write_once
from launch.runners.tasks import Event, Interrupt, Task
from launch.search.asker import Asker
from launch.sweep import expand, groups
from launch.sweep.expand import Plan, Planned
from launch.sweep.live import Live
from launch.sweep.machine import Machine
from launch.sweep.rungs import Rungs
from launch.trial import fingerprint, folder
from launch.watching.runs_folder import runs_in

TRIAL, GROUP = "launch.sweep.groups:run_one", "launch.sweep.groups:run"
STATES = {DONE: "done", DIVERGED: "diverged"}
"""The state of a trial that ended with an exit code; any other code is 'failed'."""
POLL = 1.0  # seconds between looks at trials that other processes train
LOG_TAIL = 20  # lines of a failed trial's log that go into its result.json


def run_sweep(
    sweep: Plan,
    workdir: Path,
    machine: Machine,
    asker: Asker | None = None,
    rungs: Rungs | None = None,
    sort: str = "",
    whole: Plan | None = None,
) -> int:
    """Trains what is not finished in `workdir`, stage by stage: trunks and trials on their own,
    those that branch from trunks, those that a search asks for meanwhile, then the held-out ones,
    which are predicted first. The trials of `rungs` come before all and may be stopped early.
    `sort` orders the live table. Where `sweep` is a part of a sweep, `whole` is all of it, which is
    recorded in the folder.

    Returns the exit code: 0 every trial ended; 1 some failed; 42 interrupted, run it again. Raises
    BadInput where the folder holds another sweep or damaged results.
    """
    with bad_input():
        cache = sweep.base.get("data", {}).get("cache", "cache")
        machine = machine.compiling_into(path_of(cache, "data.cache") / "compiled", workdir)
        if asker:
            asker.record(sweep)
        else:
            expand.record(whole or sweep, workdir)
        folder.require_locks(workdir / "sweep.json")
        part = whole is not None and whole is not sweep
        if machine.several or part or fingerprint.shared(workdir):
            fingerprint.require_same(workdir)
        known = [*sweep.trials, *(asker.pending if asker else ())]
        states = ended_states(known, workdir)
        view = Live(workdir, known, states, sort, tuple(asker.search.axes) if asker else ())
    with Interrupt() as interrupt, view as live:
        if states:
            live.say(f"{len(states)} of {len(known)} trials are finished already")
        *fitted, held_out = [[p for p in stage if p.id not in states] for stage in sweep.stages]
        if rungs:
            _climb(rungs, asker, machine, workdir, interrupt, live)
            fitted = [[p for p in stage if p.id not in rungs.trials] for stage in fitted]
        for stage in fitted:
            _run_stage(stage, machine, workdir, interrupt, live)
        if asker and asker.lazy and not rungs:
            _run_search(asker, machine, workdir, interrupt, live)
        if asker:
            live.to_come = 0
            live.say(asker.summary())
        _run_stage(held_out, machine, workdir, interrupt, live)
        if interrupt.count:
            live.say("Stopped. The same command goes on from here.")
            return PREEMPTED
    if saved := expand.savings(sweep, first_steps(sweep, workdir)):
        print(saved)
    failed = [key for key, state in live.states.items() if state == "failed"]
    for key in failed:
        print(f"{key} failed; its last words are in {workdir / key / 'log.txt'}", file=sys.stderr)
    return BUG if failed else DONE


def _run_stage(
    todo: Sequence[Planned], machine: Machine, workdir: Path, interrupt: Interrupt, live: Live
) -> None:
    """Trains the trials until all have ended. Those that another process trains come last: the
    sweep waits until they have ended, or goes on with them where that process has stopped."""
    waits = False
    while todo and not interrupt.count:
        mine = machine.adopted()
        held = {p.id: p.id not in mine and folder.owner(workdir / p.id) for p in todo}
        live.states |= {key: "in use" for key, owner in held.items() if owner}
        free = [planned for planned in todo if not held[planned.id]]
        if free and free[0].holdout:
            _predict(free, workdir, live)
        if free:
            # On a cluster whose machines are all to come, every trial may find a slot of its own.
            slots = len(machine.slots(len(free))) or len(free)
            together = groups.groups(free, machine.most, slots)
            _train(together, machine, workdir, interrupt, live)
        left = [planned for planned in free if live.states[planned.id] == "waiting"]
        if left and not interrupt.count:
            live.say(f"{len(left)} trials could not be trained together; training them apart")
            _train([[planned] for planned in left], machine, workdir, interrupt, live)
        todo = [planned for planned in todo if live.states[planned.id] == "in use"]
        if todo and not waits and not interrupt.count:
            waits, first = True, todo[0].id
            who = folder.owner(workdir / first) or "another process"
            others = f" and {len(todo) - 1} more" if len(todo) > 1 else ""
            live.say(f"waiting for trials in use elsewhere: {first} (by {who}){others}")
        _wait(todo, workdir, interrupt, live)
        todo = [planned for planned in todo if live.states[planned.id] == "in use"]


def _climb(
    rungs: Rungs,
    asker: Asker | None,
    machine: Machine,
    workdir: Path,
    interrupt: Interrupt,
    live: Live,
) -> None:
    """Trains the trials from rung to rung until none may go on and none is trained elsewhere. Where
    none may go on and a worker is free, a search asks for another."""
    members: dict[str, list[Planned]] = {}

    def asked() -> list[Planned]:
        with bad_input():
            trials, live.to_come = asker.ask(), asker.to_come()
        return trials

    def tasks() -> Iterator[Task | None]:
        while True:
            if planned := rungs.take(asker.grant) if asker else rungs.take():
                members[planned.id] = [planned]
                yield _task([planned], False, workdir, live)
            elif rungs.more and (new := asked()):
                with bad_input():
                    rungs.add(new)
                for planned in new:
                    live.add(planned)
            elif rungs.more:
                rungs.more = False
            elif rungs.busy:
                yield None
            else:
                return

    while not interrupt.count:
        mine = machine.adopted()
        held = {k for k in rungs.trials if k not in mine and folder.owner(workdir / k)}
        with bad_input():
            rungs.add(asker.pending if asker else ())
            rungs.more = bool(asker and asker.lazy)
            rungs.look(held)
        rungs.record()
        live.states |= dict.fromkeys(rungs.waiting(), "stopped") | dict.fromkeys(held, "in use")
        _follow(TRIAL, tasks(), members, machine, workdir, interrupt, live, rungs)
        rungs.record()
        if not rungs.held:
            break
        _wait([rungs.trials[key] for key in rungs.held], workdir, interrupt, live)
    if not interrupt.count:
        rungs.explain()
        for line in rungs.lines():
            live.say(line)


def _run_search(
    asker: Asker, machine: Machine, workdir: Path, interrupt: Interrupt, live: Live
) -> None:
    """Trains what a search asked for earlier and has not ended, and then what it asks for, each
    trial as soon as a worker is free."""
    members: dict[str, list[Planned]] = {}

    mine = machine.adopted()

    def tasks() -> Iterator[Task]:
        todo = [planned for planned in asker.pending if live.states[planned.id] == "waiting"]
        while not interrupt.count and (todo or (todo := ask())):
            planned = todo.pop(0)
            live.add(planned)
            if planned.id not in mine and folder.owner(workdir / planned.id):
                live.states[planned.id] = "in use"
            else:
                members[planned.id] = [planned]
                yield _task([planned], False, workdir, live)

    def ask() -> list[Planned]:
        with bad_input():
            trials, live.to_come = asker.ask(), asker.to_come()
        return trials

    if not interrupt.count:
        _follow(TRIAL, tasks(), members, machine, workdir, interrupt, live)
    for planned in asker.pending:  # also what other processes have asked for
        live.add(planned)
    with bad_input():
        live.states |= ended_states(asker.pending, workdir)
    left = [p for p in asker.pending if live.states[p.id] in ("waiting", "in use")]
    _run_stage(left, machine, workdir, interrupt, live)


def _wait(todo: Sequence[Planned], workdir: Path, interrupt: Interrupt, live: Live) -> None:
    """Waits for a while, and notes which trials have ended meanwhile. Those of a bucket whose owner
    has fallen silent are let go."""
    pause = max(POLL, of_environment().beat) if is_remote(workdir) else POLL
    until = time.monotonic() + (pause if todo else 0)
    while time.monotonic() < until and not interrupt.count:
        time.sleep(min(POLL, 0.1))
        live.tick()
    with bad_input():
        for key, state in ended_states(todo, workdir).items():
            live.event(Event("finished", key, 1), state)
        for planned in todo if not interrupt.count else ():
            if who := folder.let_go(workdir / planned.id):
                live.say(f"{planned.id} goes on here: {who} is gone or silent")


def summary(sweep: Plan, workdir: Path, code: int, asker: Asker | None = None) -> dict:
    """What `--json` writes: each trial as planned, with its status and its loss (None: not run)."""
    if asker:
        sweep = dataclasses.replace(sweep, trials=(*sweep.trials, *asker.pending))
    trials, started_at = [], first_steps(sweep, workdir)
    for planned in sweep.trials:
        result = read_json(workdir / planned.id / "result.json", AGAIN) or {}
        about = dict(planned.about) | {"holdout": planned.holdout, "overrides": planned.overrides}
        about |= {"branched_at": started_at[planned.id]}
        about |= {"status": result.get("status"), "eval_loss": result.get("eval_loss")}
        about |= {"stopped_by": result.get("stopped_by")}
        trials.append(about)
    return {"config": sweep.spec, "workdir": str(workdir), "exit_code": code, "trials": trials}


def ended_states(trials: Sequence[Planned], workdir: Path) -> dict[str, str]:
    """'done' or 'diverged' for each trial that has ended; a failed one will be tried again."""
    states = {planned.id: ended(workdir / planned.id) for planned in trials}
    return {key: state for key, state in states.items() if state}


def first_steps(sweep: Plan, workdir: Path) -> dict[str, int]:
    """The step that each trial started from, or will start from as planned."""
    results = {p.id: read_json(workdir / p.id / "result.json", AGAIN) or {} for p in sweep.trials}
    return {p.id: results[p.id].get("branched_at", p.branched_at) for p in sweep.trials}


def _train(
    together: Sequence[Sequence[Planned]],
    machine: Machine,
    workdir: Path,
    interrupt: Interrupt,
    live: Live,
) -> None:
    """Trains groups of trials, most of them of one trial. Trials that their group could not train
    to the end are 'waiting' afterwards."""
    stacked = any(len(trials) > 1 for trials in together)
    members = {trials[0].id: trials for trials in together}
    tasks = [_task(trials, stacked, workdir, live) for trials in together]
    _follow(GROUP if stacked else TRIAL, tasks, members, machine, workdir, interrupt, live)


def _task(trials: Sequence[Planned], stacked: bool, workdir: Path, live: Live) -> Task:
    """The task that trains the trials: GROUP if it is `stacked`, TRIAL otherwise."""
    args = [(_config(p, workdir, live), workdir / p.id, p.overrides) for p in trials]
    home = workdir / trials[0].id
    return Task(trials[0].id, (args,) if stacked else args[0], home / "log.txt")


def _follow(
    function: str,
    tasks: Iterable[Task | None],
    members: Mapping[str, Sequence[Planned]],
    machine: Machine,
    workdir: Path,
    interrupt: Interrupt,
    live: Live,
    rungs: Rungs | None = None,
) -> None:
    """Runs tasks and notes what happens to the trials of each, its `members`; `rungs` learn which
    trial has ended."""
    announced = False
    for event in machine.runner.run(function, tasks, machine.resources, interrupt):
        if interrupt.count and not announced:
            announced = True
            live.say("Stopping: trials save a checkpoint. Ctrl-C again stops them at once.")
        if event is not None and event.kind == "said":
            live.say(event.reason)
            continue
        for planned in members[event.key] if event is not None else ():
            _note(planned, event, len(members[event.key]) > 1, workdir, live)
        if rungs and event is not None and event.kind == "finished":
            rungs.ended(event.key, live.states[event.key])
        live.tick()


def _note(planned: Planned, event: Event, stacked: bool, workdir: Path, live: Live) -> None:
    """Records what an event of its task means for one trial."""
    event = dataclasses.replace(event, key=planned.id)
    state = STATES.get(event.code, "failed") if event.kind == "finished" else "running"
    if event.kind == "finished" and event.code == DONE and planned.config.checkpoint.get("stop_at"):
        state = ended(workdir / planned.id) or "stopped"
    if stacked and event.kind == "finished":
        state = ended_states([planned], workdir).get(planned.id, "waiting")
        if state == "waiting":
            event = dataclasses.replace(event, kind="retried")
    if event.kind == "finished" and event.code == IN_USE and not stacked:
        event, state = dataclasses.replace(event, kind="held"), "in use"
    live.event(event, state)
    if state == "failed":
        _record_failure(planned, event, workdir)


def _config(planned: Planned, workdir: Path, live: Live) -> ConfigDict:
    """The trial's config with the folder of its trunk. Where the trunk did not end well the trial
    starts from step 0: more compute, the same numbers."""
    if planned.trunk and live.states[planned.trunk] != "done":
        live.say(f"{planned.id} starts from step 0: {planned.trunk} {live.states[planned.trunk]}")
    elif planned.trunk:
        config = planned.config.copy_and_resolve_references()
        config.checkpoint.trunk = str(workdir / planned.trunk)
        return config
    return planned.config


def _record_failure(planned: Planned, event: Event, workdir: Path) -> None:
    """Writes the result.json of a trial that no attempt could finish, unless another process has
    finished it."""
    home = workdir / planned.id
    log = home / "log.txt"
    lines = log.read_text("utf-8", errors="replace").splitlines() if log.exists() else []
    result = {
        "id": planned.id,
        "status": "failed",
        "sweep": workdir.name,
        "overrides": planned.overrides,
        "holdout": planned.holdout,
        "attempts": event.attempt,
        "reason": event.reason,
        "log": lines[-LOG_TAIL:],
    }
    with contextlib.suppress(lease.LostLock):
        write_once(home / "result.json", result, lease.Unlocked())


def _predict(todo: Sequence[Planned], workdir: Path, live: Live) -> None:
    """Writes prediction.json for every held-out trial that has not begun, and prints it."""
    # scipy takes a while to import, and no worker needs it.
    from scaling.design.prediction import write_prediction
    from scaling.runs import read_runs

    for planned in todo:
        if (workdir / planned.id / "metrics.jsonl").exists():
            live.say(f"{planned.id} has begun already: the earlier prediction stands")
            continue
        target = {"run": planned.id, "params": planned.params, "tokens": planned.about["tokens"]}
        target["flops"] = planned.about["flops"]["6nd"]
        try:
            record = write_prediction(
                workdir / "prediction.json", read_runs(runs_in(workdir)), target
            )
        except (ValueError, FileNotFoundError) as error:
            live.say(f"No prediction of {planned.id}: {error}")
            continue
        loss, count = record["loss"], record["points"]["n"]
        interval = f"[{loss['lo']:.4f}, {loss['hi']:.4f}], {record['level']:.0%}"
        live.say(
            f"Predicted from {count} trials, before it starts: {planned.id} will reach a loss of "
            f"{loss['value']:.4f} nats/token ({interval}); {record['path']}"
        )
