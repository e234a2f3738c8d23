"""Points from anyone's CSV, and points as a CSV that reads back the same."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from scaling.laws import LAWS
from scaling.laws.law import Law
from scaling.rows import COMPONENT, FACTS, from_rows
from scaling.table import ARRAYS, COMPONENTS, Points, exact
from scaling.validate import loss_in_bits, misshapen, same_as_bits

LOSS_UNITS = {"auto": 1.0, "nats": 1.0, "bits": float(np.log(2))}  # nats each


def read_csv(path: str | Path, loss_unit: str = "auto", law: Law = LAWS["parametric"]) -> Points:
    """The points of a CSV with the columns that `law` names: params, tokens, loss for the classical
    laws. Optional: flops, loss_se, run, holdout, counted, components, facts.

    `loss_unit` is a key of LOSS_UNITS. ValueError or FileNotFoundError says what is wrong, where.
    """
    path, needed = Path(path), ", ".join(law.columns)
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"table={path} {wrong}; name a CSV with columns {needed}")
    try:
        reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"table={path} is not a text CSV ({error}); export it as UTF-8 CSV"
        ) from None
    found = [name.strip() for name in reader.fieldnames or ()]
    missing = [name for name in law.columns if name not in found]
    if missing:
        unit = " (loss in nats per token)" if law.response == "loss" else f" for law={law.name}"
        raise ValueError(
            f"table={path} lacks the columns {', '.join(missing)}: found "
            f"{', '.join(found) or 'none'}; needed {needed}{unit}"
        )
    if not rows:
        raise ValueError(f"table={path} has a header and no rows; add one row a run")
    misshapen(found, rows, f"table={path}")
    clean = [{(k or "").strip(): v for k, v in row.items()} for row in rows]
    # The header is line 1 of the file, so that row numbers are what an editor shows.
    where = [f"row {i}" for i in range(2, len(clean) + 2)]
    return in_nats(from_rows(clean, str(path), where, law.columns), loss_unit)


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
    last digit.
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
    # As a run of any length: name, numbers, holdout, counts, then what is known of some rows.
    columns = {"run": points.run, **numbers, "holdout": [str(bool(h)).lower() for h in
               points.holdout], **components, **by_convention, **other}  # fmt: skip
    rows = points.facts or ({},) * len(points)
    columns |= {name: [row.get(name, np.nan) for row in rows] for name in facts}
    if points.baselines:
        columns["counted"] = ["false"] * len(points)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    for i in range(len(points)):
        writer.writerow({name: exact(values[i]) for name, values in columns.items()})
    for b in points.baselines:
        values = {name: exact(getattr(b, name)) for name in numbers}
        writer.writerow({"run": b.id, "family": b.family, "counted": "true"} | values)
    return out.getvalue()
