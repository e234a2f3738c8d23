"""The HTML page of a precision curve, with tables for the law of Kumar et al. It works offline."""

import json
from pathlib import Path, PurePath
from typing import Any

from scaling.csv_file import cell
from scaling.drafts import as_path, write
from scaling.laws.precision import significant
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import amount, escape, label, nats, three_digits
from scaling.report.page import draw, figure_block, remove_page, table_row

TITLE = "Precision curve"
METHOD = (
    "Each run's matrices are quantised after training, and the model is scored on the run's "
    "validation set before and after. The change is a ratio of sums over sequences; its standard "
    "error takes sequences as the units and pairs them. Embeddings, the head, norms and biases are "
    "not quantised. Bits count codes and scales of the quantised weights. A table for "
    "isoflop fit --law=precision has the changes that are above 0 by two standard errors, because "
    "the law is fitted to logarithms: smaller ones are left out, which is a selection."
)
COLUMNS = ("run", "params", "tokens", "bits", "degradation", "degradation_se")


def write_page(folder: str | Path, about: dict[str, Any]) -> Path:
    """Writes precision.json, precision.csv for each way to round, the figures, then index.html;
    returns its path. If the plotting packages are not installed, only the numbers and their
    path."""
    folder, points = as_path(folder), about["points"]
    numbers = write(folder / "precision.json", json.dumps(about, indent=1) + "\n")
    for name, rows in tables(points).items():
        write(folder / name, rows)
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.precision.precision_figures import figures

    drawn = figures(points)
    specs = draw(folder, drawn)
    blocks = "\n".join(figure_block(figure) for figure in drawn)
    command = escape((about.get("made") or {}).get("command", ""))
    body = (
        f'<h1>{TITLE}</h1>\n<div class="figures">{blocks}</div>\n{table(points)}\n'
        f'<section class="panel"><h2>Methods</h2><p>{escape(METHOD)}</p>'
        f"<pre>{command}</pre></section>"
    )
    return write(folder / "index.html", frame(TITLE, body, specs))


def tables(points: list[dict[str, Any]]) -> dict[str, str]:
    """{file name: CSV of the points that the law can be fitted to}, for each way to round."""
    found: dict[str, list[dict]] = {}
    for point in points:
        way = "-".join(filter(None, ("precision", point["calibrate"], point["activations"])))
        rows = found.setdefault(f"{way}.csv", [])
        if significant(point) and point["tokens"]:
            name = f"{PurePath(point['run']).name} {point['format']}"
            rows.append({**point, "run": name})
    return {
        name: "".join(
            ",".join(cell(one) for one in row) + "\n"
            for row in (COLUMNS, *([row[column] for column in COLUMNS] for row in rows))
        )
        for name, rows in found.items()
    }


def table(points: list[dict[str, Any]]) -> str:
    """One row for each quantisation of each run."""
    rows = []
    for point in points:
        way = " ".join(filter(None, (point["calibrate"].upper(), point["activations"])))
        cells = [
            escape(label(PurePath(point["run"]).name)),
            escape(point["format"]),
            escape(way.replace("int8", "int8 inputs") or "nearest"),
            amount(point["params"]),
            f"{point['bits']:.2f}",
            nats(point["loss_before"]),
            nats(point["loss"]),
            f"{point['degradation']:+.5f}",
            "—" if point["degradation_se"] is None else f"{point['degradation_se']:.5f}",
            three_digits(point["bytes"] / point["bytes_before"]),
        ]
        rows.append(table_row(cells))
    names = ("run", "format", "rounding", "parameters", "bits", "loss before", "loss", "change")
    return section("All runs", (*names, "± (paired)", "size"), rows)
