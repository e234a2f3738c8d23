"""What a sweep would do: its trials with their cost, and the time that a machine would take."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import rich.console
import rich.table
import rich.text

from launch.amounts import amount, clock, flops
from launch.errors import bad_input
from launch.files import AGAIN, read_json
from launch.search.asker import Asker
from launch.sweep import expand, groups
from launch.sweep.execution import ended_states, first_steps
from launch.sweep.expand import CONVENTION, Plan, Planned
from launch.sweep.live import columns
from launch.sweep.machine import Machine
from scaling.printable import printable

WIDTH = 100  # characters of a line, if the terminal does not have more
MOST_LISTED = 5  # overrides of a trial in the table
SHOWN = ("name", "holdout")  # overrides that other columns show


def dry_run(sweep: Plan, workdir: Path, machine: Machine, asker: Asker | None = None) -> None:
    """Prints the table of all trials and what its times assume; writes nothing. Of a search that
    learns from its results it lists the first trials, one for each worker."""
    with bad_input():
        if asker:
            sweep = dataclasses.replace(
                sweep, trials=(*sweep.trials, *_asked(asker, workdir, machine))
            )
        states = ended_states(sweep.trials, workdir)
    platform = machine.resources.platform
    measured = expand.measured_flops(
        [read_json(workdir / key / "result.json", AGAIN) for key in states]
    )
    rate = measured or expand.ASSUMED_FLOPS[platform]
    total, times, stacked = 0.0, {}, []
    for stage in sweep.stages:
        todo = [planned for planned in stage if planned.id not in states]
        slots = machine.slots(len(todo)) if todo else []
        times |= {planned.id: expand.seconds(planned.cost, slots[0], rate) for planned in todo}
        total += expand.makespan(todo, slots, rate)
        stacked += [g for g in groups.groups(todo, machine.most, len(slots)) if len(g) > 1]
    # One line for each trial, on a terminal as in a file or a pager.
    console = rich.console.Console()
    console.width = max(console.width, WIDTH)
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
    if asker:
        print(asker.outlook())


def _asked(asker: Asker, workdir: Path, machine: Machine) -> list[Planned]:
    """The trials of a search that can be known before any further result."""
    slots = len(machine.slots(asker.search.trials or sys.maxsize))
    most = sys.maxsize
    if asker.method.SEQUENTIAL:
        most = slots + len(ended_states(asker.pending, workdir))
    while asker.lazy and len(asker.pending) < most and asker.next():
        pass
    return asker.pending


def trial_table(
    trials: Sequence[Planned], states: Mapping[str, str], times: Mapping[str, float]
) -> rich.table.Table:
    """One row for each trial: size, tokens, steps, FLOPs, estimated time or state, overrides. Only
    the overrides are cut off where the row is longer than the line."""
    table = columns("trial", "params", "tokens", "steps", "FLOPs", "est. time", "", "overrides")
    table.columns[-1].no_wrap = False  # such columns alone become narrower
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
            rich.text.Text(listed(planned.overrides), no_wrap=True, overflow="ellipsis"),
        )
    return table


def listed(overrides: Mapping[str, object]) -> str:
    """The first overrides of a trial, without their sections, and how many follow."""
    kept = {key: value for key, value in overrides.items() if key not in SHOWN}
    texts = [printable(f"{key.rpartition('.')[2]}={value}") for key, value in kept.items()]
    left = len(texts) - MOST_LISTED
    return ", ".join(texts[:MOST_LISTED]) + (f" and {left} more" if left > 0 else "")
