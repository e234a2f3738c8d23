"""This file is `isoflop sweep`: trains many trials, predicts the held-out one, fits the law.

    isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart
    isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart --dry_run

The same command again goes on where it was: finished trials are kept, the others resume.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import rich.console
from absl import flags as absl_flags
from ml_collections import ConfigDict

from launch import display, flags, workers
from launch import plan as plans
from launch.errors import BUG, DIVERGED, DONE, PREEMPTED, BadInput, bad_input
from launch.files import read_json, write_json
from launch.plan import Plan, Planned
from launch.workers import Event, Interrupt, Slot, Task

TRIAL = "launch.trial:run"
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
    boolean("dry_run", False, "print the trials with their cost and stop", values)
    boolean("fit", True, "fit the scaling law and write the report at the end", values)
    absl_flags.mark_flags_as_required(["config", "workdir"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: every trial ended; 1: some failed; 42: interrupted, run it again."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    workdir = Path(values.workdir)
    with bad_input():
        plan = plans.plan(values.config, overrides)
        if not values.dry_run:
            plans.record(plan, workdir)
    devices = workers.accelerators()
    if values.dry_run:
        _print_plan(plan, workdir, values.workers, devices)
        code = DONE
    else:
        code = _run(plan, workdir, values.workers, devices)
    if code != PREEMPTED and values.fit and not values.dry_run:
        _fit(workdir)
    if values.json:
        write_json(Path(values.json), _summary(plan, workdir, code))
    return code


def _run(plan: Plan, workdir: Path, count: int, devices: tuple[str, Sequence[str]]) -> int:
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
                slots = workers.slots(len(todo), count, devices)
                _stage(todo, slots, workdir, interrupt, live)
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
    todo: Sequence[Planned],
    slots: Sequence[Slot],
    workdir: Path,
    interrupt: Interrupt,
    live: display.Live,
) -> None:
    trials = {planned.id: planned for planned in todo}
    tasks = [
        Task(key, (_config(planned, workdir, live), home, planned.overrides), home / "log.txt")
        for key, planned in trials.items()
        for home in [workdir / key]
    ]
    told = False
    for event in workers.run(TRIAL, tasks, slots, interrupt):
        if interrupt.count and not told:
            told = True
            live.say("Stopping: trials save a checkpoint. Ctrl-C again stops them at once.")
        if event is not None:
            state = STATES.get(event.code, "failed") if event.kind == "finished" else "running"
            live.event(event, state)
            if state == "failed":
                _record_failure(trials[event.key], event, workdir)
        live.tick()


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
    from scaling.prediction import write_prediction
    from scaling.table import read_runs

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
    from launch import fit

    try:
        fit.main([f"--runs={workdir}", f"--out={workdir / 'report'}"])
    except BadInput as error:
        print(f"No scaling law from these trials: {error}", file=sys.stderr)


def _print_plan(plan: Plan, workdir: Path, count: int, devices: tuple[str, Sequence[str]]) -> None:
    """The table of --dry_run, and what its times assume."""
    with bad_input():
        states = _states(plan.trials, workdir)
    results = [read_json(workdir / key / "result.json") for key in states]
    measured = plans.measured_flops(results)
    rate = measured or plans.ASSUMED_FLOPS[devices[0]]
    total, times = 0.0, {}
    for stage in plan.stages:
        todo = [planned for planned in stage if planned.id not in states]
        slots = workers.slots(len(todo), count, devices) if todo else []
        times |= {planned.id: plans.seconds(planned.cost, slots[0], rate) for planned in todo}
        total += plans.makespan(todo, slots, rate)
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
