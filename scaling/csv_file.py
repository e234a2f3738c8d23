"""Reads points from a CSV file and writes them as a CSV file that reads back unchanged."""

import csv
import io
import re
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from scaling.drafts import as_path
from scaling.laws import LAWS
from scaling.laws.law import Law
from scaling.printable import printable
from scaling.rows import COMPONENT, FACTS, from_rows
from scaling.table import ARRAYS, COMPONENTS, Points, exact
from scaling.validate import loss_in_bits, misshapen, same_as_bits

ALIASES = {"N": "params", "D": "tokens", "C": "flops"}  # headers as papers write them
TEXTS = ("run", *(name for name, kind in FACTS.items() if kind is str))
FORMULA = re.compile(
    r"'*[=+\-@＝＋－＠\t\r\n]"
)  # a spreadsheet evaluates cells that start like this
LOSS_UNITS = {"auto": 1.0, "nats": 1.0, "bits": float(np.log(2))}  # the unit in nats


def read_csv(path: str | Path, loss_unit: str = "auto", law: Law = LAWS["parametric"]) -> Points:
    """Reads points from a CSV file with the columns that `law` needs. Classical laws need params,
    tokens and loss (or N, D, loss). Optional: flops or C, loss_se, run, holdout, counted,
    components, facts.

    `loss_unit` is a key of LOSS_UNITS. Raises ValueError or FileNotFoundError, with the row where
    there is one.
    """
    path, needed = as_path(path), ", ".join(law.columns)
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"table={path} {wrong}; give a CSV file with columns {needed}")
    try:
        where, (first, *lines) = cells_of(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"table={path} is not a text CSV ({error}); export it as UTF-8 CSV"
        ) from None
    header = [name.strip() for name in first]
    names = [
        ALIASES[name]
        if name in ALIASES and name not in law.columns and ALIASES[name] not in header
        else name
        for name in header
    ]
    missing = [name for name in law.columns if name not in names]
    if missing:
        unit = " (loss in nats per token)" if law.response == "loss" else f" for law={law.name}"
        raise ValueError(
            f"table={path} lacks the columns {', '.join(missing)}: it has "
            f"{printable(', '.join(header)) or 'none'}; it needs {needed}{unit}"
        )
    if not lines:
        raise ValueError(f"table={path} has a header but no rows; add one row per run")
    misshapen(names, lines, where, f"table={path}")
    rows = [dict(zip_longest(names, cells, fillvalue="")) for cells in lines]
    for row in rows:
        row.update({name: without_guard(row[name]) for name in TEXTS if name in row})
    return in_nats(from_rows(rows, str(path), where, law.columns, law.signed), loss_unit)


def cells_of(text: str) -> tuple[list[str], list[list[str]]]:
    """Labels ('row 7') of the rows below the header, and the cells of the header and of each row.

    Empty rows are skipped. A row's number is the line on which it starts, as an editor shows it.
    """
    reader, rows, line = csv.reader(io.StringIO(text, newline="")), [], 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            rows.append((f"row {line}", cells))
        line = reader.line_num + 1
    return [where for where, _ in rows[1:]], [cells for _, cells in rows] or [[]]


def with_guard(text: str) -> str:
    """The text, with a leading apostrophe if a spreadsheet would read it as a formula."""
    return "'" + text if FORMULA.match(text) else text


def without_guard(text: str) -> str:
    """The inverse of `with_guard`."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def in_nats(points: Points, loss_unit: str) -> Points:
    """The points with losses in nats. Raises ValueError for 'auto' if the losses look like bits."""
    if loss_unit not in LOSS_UNITS:
        raise ValueError(f"loss_unit={loss_unit!r} is unknown; use one of {', '.join(LOSS_UNITS)}")
    if loss_unit == "auto":
        loss_in_bits(points.params, points.tokens, points.loss, points.source)
        same_as_bits(points.loss, points.fact("bits_per_byte"), points.source)
    scale = LOSS_UNITS[loss_unit]
    baselines = tuple(
        replace(b, loss=b.loss * scale, loss_se=b.loss_se * scale) for b in points.baselines
    )
    return replace(
        points, loss=points.loss * scale, loss_se=points.loss_se * scale, baselines=baselines
    )


def to_csv(points: Points) -> str:
    """The points as CSV text; `read_csv` reads back the same numbers exactly. Baselines are rows
    with counted=true. Text that a spreadsheet would read as a formula gets a leading apostrophe.
    """
    facts = [name for name in FACTS if any(name in row for row in points.facts)]
    if points.baselines and "family" not in facts:
        facts = ["family", *facts]
    components = {
        name if name in COMPONENTS else COMPONENT + name: values
        for name, values in points.components.items()
    }
    by_convention = {f"flops_{name}": values for name, values in points.flops_by.items()}
    numbers = {name: getattr(points, name) for name in ARRAYS if name not in ("run", "holdout")}
    numbers = {k: v for k, v in numbers.items() if k == "loss_se" or np.isfinite(v).any()}
    other = {name: values for name, values in points.other.items() if name not in FACTS}
    # Columns that every row has come first; then facts, which some rows may lack.
    columns = {"run": points.run, **numbers, "holdout": [str(bool(h)).lower() for h in
               points.holdout], **components, **by_convention, **other}  # fmt: skip
    every = points.facts or ({},) * len(points)
    columns |= {name: [row.get(name, np.nan) for row in every] for name in facts}
    if points.baselines:
        columns["counted"] = ["false"] * len(points)
    rows = [[values[i] for values in columns.values()] for i in range(len(points))]
    for b in points.baselines:
        known = {name: getattr(b, name) for name in numbers}
        known |= {"run": b.id, "family": b.family, "counted": "true"}
        rows.append([known.get(name, "") for name in columns])
    return "".join(",".join(map(cell, row)) + "\n" for row in (list(columns), *rows))


def cell(value: str | float) -> str:
    """A value as a CSV cell: exact numbers, guarded text, quotes if needed."""
    text = with_guard(value) if isinstance(value, str) else exact(value)
    # csv.writer does not quote a carriage return, and csv.reader ends the row there.
    return '"' + text.replace('"', '""') + '"' if re.search('[,"\r\n]', text) else text
