"""This file is `isoflop sweep`: trains many trials, predicts the held-out one, fits the law.

    isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart
    isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart --dry_run

The same command again goes on where it was: finished trials are kept, the others resume.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import rich.console
from absl import flags as absl_flags
from ml_collections import ConfigDict

from launch import flags
from launch.errors import BUG, DIVERGED, DONE, PREEMPTED, BadInput, bad_input
from launch.files import read_json, write_json
from launch.runners import local as workers
from launch.runners.local import Event, Interrupt, Slot, Task
from launch.sweep import expand as plans
from launch.sweep import groups as group
from launch.sweep import live as display
from launch.sweep.expand import Plan, Planned

TRIAL, GROUP = "launch.trial.run:run", "launch.sweep.groups:run"
STATES = {DONE: "done", DIVERGED: "diverged"}
"""The state of a trial that ended with an exit code; any other code is 'failed'."""
LOG_TAIL = 20  # lines of a failed trial's log that go into its result.json


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    text, boolean = absl_flags.DEFINE_string, absl_flags.DEFINE_boolean
    text("config", None, "the sweep's config file, FILE.py or FILE.py:ARG", values)
    text("workdir", None, "folder of the sweep: a folder a trial, report/", values)
    text("json", None, "write what was planned and what came of it to this file", values)
    absl_flags.DEFINE_integer(
        "workers", 0, "trials at a time; 0: one a core or device", lower_bound=0, flag_values=values
    )
    text(
        "population",
        "auto",
        "trials that differ in numbers alone are trained stacked: auto (on accelerators), off, or "
        "at most so many in a group, on CPUs too, where that is slower",
        values,
    )
    boolean("dry_run", False, "print the trials with their cost and stop", values)
    boolean("fit", True, "fit the scaling law and write the report at the end", values)
    absl_flags.mark_flags_as_required(["config", "workdir"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: every trial ended; 1: some failed; 42: interrupted, run it again."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    workdir = Path(values.workdir)
    devices = workers.accelerators()
    with bad_input():
        most = group.most(values.population, devices[0])
        plan = plans.plan(values.config, overrides, workdir)
        if not values.dry_run:
            plans.record(plan, workdir)
    if values.dry_run:
        _print_plan(plan, workdir, values.workers, devices, most)
        code = DONE
    else:
        code = _run(plan, workdir, values.workers, devices, most)
    if code != PREEMPTED and values.fit and not values.dry_run:
        _fit(workdir)
    if values.json:
        write_json(Path(values.json), _summary(plan, workdir, code))
    return code


def _run(
    plan: Plan, workdir: Path, count: int, devices: tuple[str, Sequence[str]], most: int
) -> int:
    """All stages: the trials that are fitted, trunks first, then those predicted from them."""
    with bad_input():
        states = _states(plan.trials, workdir)
    with Interrupt() as interrupt, display.Live(workdir, plan.trials, states) as live:
        if states:
            live.say(f"{len(states)} of {len(plan.trials)} trials are finished already")
        for stage in plan.stages:
            todo = [planned for planned in stage if planned.id not in states]
            if todo and todo[0].holdout:
                _predict(todo, workdir, live)
            if todo and not interrupt.count:
                together = group.groups(todo, most, len(workers.slots(len(todo), count, devices)))
                slots = workers.slots(len(together), count, devices)
                _stage(together, slots, workdir, interrupt, live)
            left = [planned for planned in todo if live.states[planned.id] == "waiting"]
            if left and not interrupt.count:
                live.say(f"{len(left)} trials that could not be trained together are so apart")
                slots = workers.slots(len(left), count, devices)
                _stage([[planned] for planned in left], slots, workdir, interrupt, live)
            if interrupt.count:
                live.say("Stopped. The same command goes on from here.")
                return PREEMPTED
    if spared := plans.savings(plan, _branched(plan, workdir)):
        print(spared)
    failed = [key for key, state in live.states.items() if state == "failed"]
    for key in failed:
        print(f"{key} failed; its last words are in {workdir / key / 'log.txt'}", file=sys.stderr)
    return BUG if failed else DONE


def _stage(
    groups: Sequence[Sequence[Planned]],
    slots: Sequence[Slot],
    workdir: Path,
    interrupt: Interrupt,
    live: display.Live,
) -> None:
    """Trains groups of trials, most of them of one. Trials that their group could not train to an
    end are waiting afterwards."""
    stacked = any(len(trials) > 1 for trials in groups)
    members, tasks = {}, []
    for trials in groups:
        first = trials[0].id
        members[first] = trials
        args = [(_config(p, workdir, live), workdir / p.id, p.overrides) for p in trials]
        tasks.append(Task(first, (args,) if stacked else args[0], workdir / first / "log.txt"))
    told = False
    for event in workers.run(GROUP if stacked else TRIAL, tasks, slots, interrupt):
        if interrupt.count and not told:
            told = True
            live.say("Stopping: trials save a checkpoint. Ctrl-C again stops them at once.")
        for planned in members[event.key] if event is not None else ():
            _note(planned, event, len(members[event.key]) > 1, workdir, live)
        live.tick()


def _note(planned: Planned, event: Event, stacked: bool, workdir: Path, live: display.Live) -> None:
    """Tells what an event of its task means for a trial."""
    event = dataclasses.replace(event, key=planned.id)
    state = STATES.get(event.code, "failed") if event.kind == "finished" else "running"
    if stacked and event.kind == "finished":
        state = _states([planned], workdir).get(planned.id, "waiting")
        if state == "waiting":
            event = dataclasses.replace(event, kind="retried")
    live.event(event, state)
    if state == "failed":
        _record_failure(planned, event, workdir)


def _config(planned: Planned, workdir: Path, live: display.Live) -> ConfigDict:
    """The trial's config, told where its trunk is. A trunk that did not end well is none: the trial
    starts from step 0, which costs more and changes nothing else."""
    if planned.trunk and live.states[planned.trunk] != "done":
        live.say(f"{planned.id} starts from step 0: {planned.trunk} {live.states[planned.trunk]}")
    elif planned.trunk:
        config = planned.config.copy_and_resolve_references()
        config.checkpoint.trunk = str(workdir / planned.trunk)
        return config
    return planned.config


def _branched(plan: Plan, workdir: Path) -> dict[str, int]:
    """The step that each trial started from; of one that has not ended, as planned."""
    results = {p.id: read_json(workdir / p.id / "result.json") or {} for p in plan.trials}
    return {p.id: results[p.id].get("branched_at", p.branched_at) for p in plan.trials}


def _states(trials: Sequence[Planned], workdir: Path) -> dict[str, str]:
    """'done' or 'diverged' for each trial that needs no more work; a failed one is tried again."""
    results = {planned.id: read_json(workdir / planned.id / "result.json") for planned in trials}
    return {
        key: result["status"]
        for key, result in results.items()
        if result and result["status"] in STATES.values()
    }


def _record_failure(planned: Planned, event: Event, workdir: Path) -> None:
    """Writes the result.json of a trial that no attempt could finish."""
    home = workdir / planned.id
    log = home / "log.txt"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    write_json(
        home / "result.json",
        {
            "id": planned.id,
            "status": "failed",
            "sweep": workdir.name,
            "overrides": planned.overrides,
            "holdout": planned.holdout,
            "attempts": event.attempt,
            "reason": event.reason,
            "log": lines[-LOG_TAIL:],
        },
    )


def _predict(todo: Sequence[Planned], workdir: Path, live: display.Live) -> None:
    """Writes prediction.json for every held-out trial that has not begun, and says what it says."""
    # scipy takes a while to import, and no worker needs it.
    from scaling.design.prediction import write_prediction
    from scaling.runs import read_runs

    for planned in todo:
        if (workdir / planned.id / "metrics.jsonl").exists():
            live.say(f"{planned.id} has begun already: what was predicted before stands")
            continue
        target = {"run": planned.id, "params": planned.params, "tokens": planned.about["tokens"]}
        target["flops"] = planned.about["flops"]["6nd"]
        try:
            record = write_prediction(workdir / "prediction.json", read_runs(workdir), target)
        except (ValueError, FileNotFoundError) as error:
            live.say(f"No prediction of {planned.id}: {error}")
            continue
        loss, count = record["loss"], record["points"]["n"]
        interval = f"[{loss['lo']:.4f}, {loss['hi']:.4f}], {record['level']:.0%}"
        live.say(
            f"Predicted from {count} trials, before it starts: {planned.id} will reach a loss of "
            f"{loss['value']:.4f} nats/token ({interval}); {record['path']}"
        )


def _fit(workdir: Path) -> None:
    """Fits what is there and writes the report; says so where the trials can't support a fit."""
    from launch.verbs import fit

    try:
        fit.fit_runs(workdir, workdir / "report")
    except BadInput as error:
        print(f"No scaling law from these trials: {error}", file=sys.stderr)


def _print_plan(
    plan: Plan, workdir: Path, count: int, devices: tuple[str, Sequence[str]], most: int
) -> None:
    """The table of --dry_run, and what its times assume."""
    with bad_input():
        states = _states(plan.trials, workdir)
    results = [read_json(workdir / key / "result.json") for key in states]
    measured = plans.measured_flops(results)
    rate = measured or plans.ASSUMED_FLOPS[devices[0]]
    total, times, together = 0.0, {}, []
    for stage in plan.stages:
        todo = [planned for planned in stage if planned.id not in states]
        slots = workers.slots(len(todo), count, devices) if todo else []
        times |= {planned.id: plans.seconds(planned.cost, slots[0], rate) for planned in todo}
        total += plans.makespan(todo, slots, rate)
        together += [g for g in group.groups(todo, most, len(slots)) if len(g) > 1]
    # A line a trial, however long, for a file or a pager as for a terminal.
    console = rich.console.Console(width=max(rich.console.Console().width, 250))
    console.print(display.dry_run(plan.trials, states, times))
    unit = "core" if devices[0] == "cpu" else "device"
    basis = "measured here" if measured else "assumed"
    counts = f"{len(states)} finished, {plan.duplicates} duplicates dropped"
    print(
        f"{len(plan.trials)} trials ({counts}); "
        f"about {display.clock(total)} at {rate / 1e9:.0f} GFLOP/s a {unit} ({basis})"
    )
    if together:
        sizes = [len(trials) for trials in together]
        print(f"{sum(sizes)} trials in {len(sizes)} groups of up to {max(sizes)}, trained stacked")
    if spared := plans.savings(plan, _branched(plan, workdir)):
        print(spared)


def _summary(plan: Plan, workdir: Path, code: int) -> dict:
    """What --json writes."""
    trials, branched_at = [], _branched(plan, workdir)
    for planned in plan.trials:
        result = read_json(workdir / planned.id / "result.json") or {}
        about = dict(planned.about) | {"holdout": planned.holdout, "overrides": planned.overrides}
        about["branched_at"] = branched_at[planned.id]
        trials.append(
            about | {"status": result.get("status"), "eval_loss": result.get("eval_loss")}
        )
    return {"config": plan.spec, "workdir": str(workdir), "exit_code": code, "trials": trials}
