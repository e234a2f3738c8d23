"""What a sweep would do: its trials with their cost, and the time that a machine would take."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import rich.console
import rich.table
from rich.markup import escape

from launch.amounts import amount, clock, flops
from launch.errors import bad_input
from launch.files import read_json
from launch.sweep import expand, groups
from launch.sweep.execution import ended_states, first_steps
from launch.sweep.expand import CONVENTION, Plan, Planned
from launch.sweep.live import columns
from launch.sweep.machine import Machine
from scaling.printable import printable

MOST_LISTED = 5  # overrides of a trial in the table


def dry_run(sweep: Plan, workdir: Path, machine: Machine) -> None:
    """Prints the table of all trials and what its times assume; writes nothing."""
    with bad_input():
        states = ended_states(sweep.trials, workdir)
    platform = machine.resources.platform
    measured = expand.measured_flops([read_json(workdir / key / "result.json") for key in states])
    rate = measured or expand.ASSUMED_FLOPS[platform]
    total, times, stacked = 0.0, {}, []
    for stage in sweep.stages:
        todo = [planned for planned in stage if planned.id not in states]
        slots = machine.slots(len(todo)) if todo else []
        times |= {planned.id: expand.seconds(planned.cost, slots[0], rate) for planned in todo}
        total += expand.makespan(todo, slots, rate)
        stacked += [g for g in groups.groups(todo, machine.most, len(slots)) if len(g) > 1]
    # One line for each trial, however long, in a file or a pager as on a terminal.
    console = rich.console.Console(width=max(rich.console.Console().width, 250))
    console.print(trial_table(sweep.trials, states, times))
    unit = "core" if platform == "cpu" else "device"
    basis = "measured here" if measured else "assumed"
    counts = f"{len(states)} finished, {sweep.duplicates} duplicates dropped"
    print(
        f"{len(sweep.trials)} trials ({counts}); "
        f"about {clock(total)} at {rate / 1e9:.0f} GFLOP/s a {unit} ({basis})"
    )
    if stacked:
        sizes = [len(trials) for trials in stacked]
        print(f"{sum(sizes)} trials in {len(sizes)} groups of up to {max(sizes)}, trained stacked")
    if saved := expand.savings(sweep, first_steps(sweep, workdir)):
        print(saved)


def trial_table(
    trials: Sequence[Planned], states: Mapping[str, str], times: Mapping[str, float]
) -> rich.table.Table:
    """One row for each trial: size, tokens, steps, FLOPs, estimated seconds or state, overrides."""
    table = columns("trial", "params", "tokens", "steps", "FLOPs", "est. time", "", "overrides")
    for planned in trials:
        about = planned.about
        notes = ["held out"] if planned.holdout else []
        if planned.trunk:
            notes.append(f"from step {planned.branched_at:,} of {planned.trunk}")
        table.add_row(
            planned.id,
            amount(planned.params) if planned.params else "counted",
            amount(about["tokens"]),
            f"{about['steps']:,}",
            flops(about["flops"][CONVENTION]),
            states.get(planned.id) or clock(times[planned.id]),
            ", ".join(notes),
            listed(planned.overrides),
        )
    return table


def listed(overrides: Mapping[str, object]) -> str:
    """The first overrides of a trial and how many follow; config.json has them all."""
    texts = [escape(printable(f"{key}={value}")) for key, value in overrides.items()]
    left = len(texts) - MOST_LISTED
    return ", ".join(texts[:MOST_LISTED]) + (f" and {left} more" if left > 0 else "")
