"""Points from anyone's CSV, and points as a CSV that reads back the same."""

import csv
import io
import re
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from scaling.laws import LAWS
from scaling.laws.law import Law
from scaling.printable import printable
from scaling.rows import COMPONENT, FACTS, from_rows
from scaling.table import ARRAYS, COMPONENTS, Points, exact
from scaling.validate import loss_in_bits, misshapen, same_as_bits

ALIASES = {"N": "params", "D": "tokens", "C": "flops"}  # headers as papers write them
TEXTS = ("run", *(name for name, kind in FACTS.items() if kind is str))
FORMULA = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")  # how a cell begins that a spreadsheet computes
LOSS_UNITS = {"auto": 1.0, "nats": 1.0, "bits": float(np.log(2))}  # nats each


def read_csv(path: str | Path, loss_unit: str = "auto", law: Law = LAWS["parametric"]) -> Points:
    """The points of a CSV with the columns that `law` names: params, tokens, loss for the classical
    laws, or N, D, loss. Optional: flops or C, loss_se, run, holdout, counted, components, facts.

    `loss_unit` is a key of LOSS_UNITS. ValueError or FileNotFoundError says what is wrong, where.
    """
    path, needed = Path(path), ", ".join(law.columns)
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"table={path} {wrong}; name a CSV with columns {needed}")
    try:
        where, (header, *lines) = cells_of(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"table={path} is not a text CSV ({error}); export it as UTF-8 CSV"
        ) from None
    found = [name.strip() for name in header]
    names = [
        ALIASES[name]
        if name in ALIASES and name not in law.columns and ALIASES[name] not in found
        else name
        for name in found
    ]
    missing = [name for name in law.columns if name not in names]
    if missing:
        unit = " (loss in nats per token)" if law.response == "loss" else f" for law={law.name}"
        raise ValueError(
            f"table={path} lacks the columns {', '.join(missing)}: found "
            f"{printable(', '.join(found)) or 'none'}; needed {needed}{unit}"
        )
    if not lines:
        raise ValueError(f"table={path} has a header and no rows; add one row a run")
    misshapen(names, lines, where, f"table={path}")
    rows = [dict(zip_longest(names, cells, fillvalue="")) for cells in lines]
    for row in rows:
        row.update({name: without_guard(row[name]) for name in TEXTS if name in row})
    return in_nats(from_rows(rows, str(path), where, law.columns), loss_unit)


def cells_of(text: str) -> tuple[list[str], list[list[str]]]:
    """('row 7' of each row below the header, the cells of the header and of each row). Rows without
    content are skipped. Rows are numbered by the line where they begin, as an editor counts lines.
    """
    reader, found, begins = csv.reader(io.StringIO(text, newline="")), [], 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            found.append((f"row {begins}", cells))
        begins = reader.line_num + 1
    return [where for where, _ in found[1:]], [cells for _, cells in found] or [[]]


def with_guard(text: str) -> str:
    """The text after an apostrophe where a spreadsheet would take it for a formula."""
    return "'" + text if FORMULA.match(text) else text


def without_guard(text: str) -> str:
    """The text that `with_guard` was given."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def in_nats(points: Points, loss_unit: str) -> Points:
    """The points with losses in nats. ValueError where 'auto' finds that they look like bits."""
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
    """The points as CSV, baselines as rows with counted=true; `read_csv` reads them back to the
    last digit. Text that a spreadsheet would run as a formula stands behind an apostrophe.
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
    # Name, numbers, holdout and counts of every run; then facts that some rows may lack.
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
    """A value as a cell: numbers exact, text guarded, and quoted where it has to be."""
    text = with_guard(value) if isinstance(value, str) else exact(value)
    # csv.writer leaves a carriage return bare, which ends the row for those who read it.
    return '"' + text.replace('"', '""') + '"' if re.search('[,"\r\n]', text) else text
