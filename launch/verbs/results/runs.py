"""isoflop runs: lists what a folder of runs holds.

isoflop runs runs/rates
isoflop runs runs --where="status == 'done' and model.d_model == 64" --sort=-params
isoflop runs runs/rates --csv=rates.csv

One row for each trial, each sweep by itself: status, varied keys, loss, size, tokens, time. After ±
stands the standard deviation over the seeds of the configuration if it has several ("seeds"),
otherwise the standard error of the evaluation ("eval"), which says nothing about other seeds.

--where keeps the trials that an expression holds for; of several, all must hold. It has ==, !=, <,
<=, >, >=, in, and, or, not. Its names are config keys, or their last part where that is clear, and
id, status, sweep, loss, loss_se, bits_per_byte, params, tokens, steps, flops, seconds, seed and
holdout. What is not known yet, such as the loss of a running trial, compares as false.

Of trials that run now, a line names the nodes that they run on, the age of their last heartbeat and
the time that is left; --price=2.5, of a device-hour, adds what the sweep has cost until now.

isoflop runs gs://BUCKET/SWEEP --price=1.2
"""

import csv
import io
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from absl import flags as absl_flags

from data.files import is_remote, to_path
from launch import flags
from launch.alive import alive
from launch.amounts import amount, clock
from launch.errors import DONE, bad_input, writing
from launch.screen.fitted_table import Column, aligned, cell, left_out
from launch.watching import nodes
from launch.watching.runs_folder import runs_in
from scaling.drafts import write
from scaling.printable import csv_cell, printable
from scaling.ranking import filters
from scaling.ranking.trials import Sweep, read_sweeps, short_names, spelled
from scaling.report.number_text import nats

MEASURED = ("id", "sweep", "status", "loss", "loss_se", "spread", "spread_of", "seeds",
            "bits_per_byte", "params", "tokens", "steps", "flops", "seconds", "seed",
            "holdout")  # fmt: skip
"""What --csv and --json say of each trial besides the varied keys."""
IN_A_FILE = 200  # characters of a line where the output is not a terminal


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("runs", "runs", "folder of a run, of a sweep, or of several", values)
    flags.define_where(values)
    absl_flags.DEFINE_string("sort", "loss", "key to sort by; -KEY: descending", values)
    absl_flags.DEFINE_integer(
        "top", 40, "rows shown of each sweep; 0: all", lower_bound=0, flag_values=values
    )
    flags.define_amount("price", None, "of a device-hour; the cost until now is shown", values)
    flags.define_path("csv", None, "write all rows to this file", values)
    flags.define_path("json", None, "write all rows to this file, sweep by sweep", values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the tables and writes what the flags ask for. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="runs")
    with bad_input(), alive("reading the runs"):
        everything = [nodes.as_it_runs(sweep) for sweep in read_sweeps(runs_in(values.runs))]
        standings = {sweep.folder: nodes.standing(sweep) for sweep in everything}
        known = filters.names(everything)
        kept = filters.keep(everything, values.where)
        spreads = {sweep.folder: spread(sweep) for sweep in everything}
        listings = [
            Listing(
                sweep,
                filters.ordered(rows(sweep, spreads[sweep.folder]), values.sort, known),
                standings[sweep.folder],
            )
            for sweep in kept
        ]
    if values.csv:
        with writing("csv", values.csv):
            write(to_path(values.csv), to_csv(listings))
    if values.json:
        about = {"runs": values.runs, "where": values.where, "sort": values.sort}
        about["sweeps"] = [
            to_json(listing) | nodes.to_json(listing.standing, values.price) for listing in listings
        ]
        with writing("json", values.json):
            write(to_path(values.json), json.dumps(about, indent=1) + "\n")
    show(listings, values.top, len(everything), values.price)
    return DONE


@dataclass(frozen=True)
class Listing:
    """The rows of one sweep in their order: `filters.Row`s with the `spread` of the loss."""

    sweep: Sweep
    rows: Sequence[filters.Row]
    standing: nodes.Standing = field(default_factory=nodes.Standing)

    @property
    def holders(self) -> Mapping[str, nodes.Holder]:
        """Who trains each running trial, if that can be another machine than this one."""
        held = self.standing.holders
        return held if is_remote(self.sweep.folder) or len(self.standing.nodes) > 1 else {}

    @property
    def varied(self) -> tuple[str, ...]:
        """The varied keys, and the seed if it differs."""
        seeds = {row["seed"] for row in self.rows}
        return self.sweep.varied + (("seed",) if len(seeds) > 1 else ())


def spread(sweep: Sweep) -> dict[tuple, list[float]]:
    """The losses of each configuration of a sweep, one for each seed that is done. A configuration
    is the values of the varied keys."""
    losses: dict[tuple, dict[int, float]] = {}
    for trial in sweep.trials:
        value, _ = filters.loss(trial)
        if trial.status == "done" and math.isfinite(value):
            losses.setdefault(configuration(trial.settings, sweep), {})[trial.seed] = value
    return {key: list(by_seed.values()) for key, by_seed in losses.items()}


def configuration(settings: filters.Row, sweep: Sweep) -> tuple:
    """What trials that differ only in their seed share."""
    return tuple(spelled(settings.get(key)) for key in sweep.varied)


def rows(sweep: Sweep, losses: dict[tuple, list[float]]) -> list[filters.Row]:
    """The rows of a sweep's trials with `spread`, `spread_of` and the number of `seeds`."""
    found = []
    for trial in sweep.trials:
        row = filters.row(trial, sweep.name)
        same = losses.get(configuration(trial.settings, sweep), [])
        row |= {"seeds": len(same), "spread": row["loss_se"], "spread_of": "evaluation"}
        if trial.status == "done" and len(same) > 1:
            row |= {"spread": statistics.stdev(same), "spread_of": "seeds"}
        elif filters.missing(row["loss_se"]):
            row |= {"spread": None, "spread_of": None}
        found.append(row)
    return found


def to_csv(listings: Sequence[Listing]) -> str:
    """All rows with one column for each fact and for each key that varies in any sweep."""
    keys = dict.fromkeys(key for one in listings for key in (*MEASURED, *one.varied))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(keys)
    for listing in listings:
        table.writerows(["" if filters.missing(row.get(key)) else in_csv(row[key]) for key in keys]
                        for row in listing.rows)  # fmt: skip
    return text.getvalue()


def in_csv(value: Any) -> Any:
    return csv_cell(spelled(value) if isinstance(value, list | dict) else value)


def to_json(listing: Listing) -> dict[str, Any]:
    """A sweep with its rows; unknown values are null."""
    sweep = listing.sweep
    trials = []
    for row in listing.rows:
        about = {key: None if filters.missing(row.get(key)) else row[key] for key in MEASURED}
        trials.append(about | {"varied": {key: row.get(key) for key in listing.varied}})
    about = {"name": sweep.name, "folder": str(sweep.folder), "varied": list(listing.varied)}
    return about | {"trials": trials}


def show(listings: Sequence[Listing], top: int, sweeps: int, price: float | None) -> None:
    """Prints a table for each sweep with its first `top` rows (0: all), and where it stands.
    `sweeps` is their number before --where left some out."""
    import rich.console

    console = rich.console.Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, IN_A_FILE)
    if sweeps > 1:
        empty = sweeps - len(listings)
        without = f", {empty} of them without a matching trial" if empty else ""
        console.print(f"{sweeps} sweeps, each by itself{without}\n")
    for number, listing in enumerate(listings):
        rows = listing.rows[: top or None]
        counts = Counter(row["status"] for row in listing.rows)
        states = ", ".join(f"{count} {status}" for status, count in counts.most_common())
        title = f"{printable(listing.sweep.folder)}: {states}"
        console.print(f"\n{title}" if number else title, style="bold", soft_wrap=True)
        (head, *lines), left = aligned(columns_of(listing, rows), console.width)
        console.out(head, style="bold", highlight=False)
        console.out("\n".join(lines), highlight=False)
        for line in nodes.lines(listing.standing, price, clock):
            console.print(line, soft_wrap=True)
        for note in notes(listing, len(rows), left):
            console.print(note, style="dim", soft_wrap=True)


def notes(listing: Listing, shown: int, left: Sequence[str]) -> list[str]:
    """What stands under a table of the first `shown` rows without the columns `left`."""
    found = [left_out(left)] if left else []
    kinds = {row["spread_of"] for row in listing.rows}
    if "evaluation" in kinds and "seeds" not in kinds:
        found.append(
            "± is the evaluation's standard error: one seed each, so the spread over seeds is "
            "unknown"
        )
    if shown < len(listing.rows):
        found.append(f"{len(listing.rows) - shown:,} more: --top=0 shows all")
    return found


def columns_of(listing: Listing, rows: Sequence[filters.Row]) -> list[Column]:
    """The columns of a sweep's table."""
    titles = short_names(listing.varied)
    of = lambda key, text: ["" if filters.missing(r[key]) else text(r[key]) for r in rows]  # noqa: E731
    holder = lambda r: listing.holders.get(r["id"])  # noqa: E731
    held = [] if not listing.holders else [
        Column("node", [h.node if (h := holder(r)) else "" for r in rows], number=False),
        Column("beat", [f"{h.age:.0f} s" if (h := holder(r)) else "" for r in rows]),
    ]  # fmt: skip
    labels = {"seeds": "{seeds} seeds", "evaluation": "eval", None: ""}
    return [
        Column("trial", of("id", printable), number=False),
        Column("status", of("status", str), number=False),
        *held,
        *(Column(titles[k], [cell(r.get(k)) for r in rows], 1) for k in listing.varied),
        Column("loss", of("loss", nats)),
        Column("±", of("spread", nats)),
        Column("of", [labels[row["spread_of"]].format_map(row) for row in rows], number=False),
        Column("params", of("params", amount), 2),
        Column("tokens", of("tokens", amount), 3),
        Column("time", of("seconds", clock), 4),
    ]
