"""Writes runs.csv, with one row for each run, and curves.csv, with one for each logged step."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data.atomic import write_atomic
from launch.export.runs import Run
from scaling.printable import csv_cell

WHOLE = True  # every run is written each time


def write(runs: Sequence[Run], project: str, out: Path) -> str:
    """Writes both files anew, so runs that are not among `runs` are dropped."""
    about = [
        {"run": run.name, "sweep": run.sweep} | run.summary
        | {f"config.{key}": value for key, value in run.settings.items()}
        for run in runs
    ]  # fmt: skip
    curves = [{"run": run.name, "sweep": run.sweep} | row for run in runs for row in run.curve]
    for name, rows in (("runs.csv", about), ("curves.csv", curves)):
        write_atomic(out / name, _table(rows).encode())
    return f"{out / 'runs.csv'}, {out / 'curves.csv'}"


def _table(rows: Iterable[Mapping[str, object]]) -> str:
    """The rows as CSV with every key as a column. Text that a spreadsheet would run as a formula
    begins with an apostrophe."""
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(value) for key, value in row.items()})
    return file.getvalue()
