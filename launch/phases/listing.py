"""What the terminal shows of the phases of post-training."""

from typing import Any

import rich.console

from launch.amounts import clock
from launch.screen.fitted_table import Column, fitted, left_out
from scaling.printable import printable

LEVEL = "intervals hold 90%; prompts are the independent units"


def show(about: dict[str, Any]) -> None:
    """Prints one row a run."""
    console = rich.console.Console(highlight=False, markup=False)
    phases = about["phases"]
    columns = [
        Column("phase", [printable(one["name"]) for one in phases], number=False),
        Column("objective", [printable(one["objective"]) for one in phases], spare=3, number=False),
        Column("steps", [number(one["steps"]) for one in phases], spare=2),
        Column("time", [seconds(one["seconds"]) for one in phases], spare=1),
    ]
    for place, first in enumerate(phases[0]["pass_at_k"]):
        found = (one["pass_at_k"][place] for one in phases)
        cells = [f"{v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for v in found]
        columns.append(Column(f"pass@{first['k']}", cells))
    table, missing = fitted(columns, console.width)
    console.print(table, soft_wrap=True)
    if missing:
        console.print(left_out(missing), soft_wrap=True)
    console.print(
        f"{phases[0]['prompts']} prompts of {printable(about['task'])}, {about['samples']} answers "
        f"to each at temperature {about['temperature']:g}; {LEVEL}",
        soft_wrap=True,
    )


def number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "—"


def seconds(value: Any) -> str:
    return clock(value) if isinstance(value, int | float) else "—"
