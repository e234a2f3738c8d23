"""The HTML page of the description lengths of a sweep. It works offline."""

import json
from pathlib import Path, PurePath
from typing import Any

from scaling.drafts import as_path, write
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import amount, escape, label
from scaling.report.page import card, draw, figure_block, remove_page, table_row

FILE = "description.json"
NAMES = {"float32": "float32", "bfloat16": "bfloat16", "zstd": "bfloat16 by zstd"}
METHOD = (
    "A description of the text is a model and the text coded with it (a two-part code, Rissanen "
    "1978). The text is coded by arithmetic coding, its size is that of the file; in bfloat16 and "
    "by zstd it is coded with the parameters rounded to bfloat16. A model counts 4 or 2 bytes a "
    "parameter, or what Zstandard -19 makes of its bfloat16; the n-grams of a counted model count "
    "as their file. The program that decodes and the tokenizer are not counted, for any of them."
)


def write_page(folder: str | Path, about: dict[str, Any]) -> Path:
    """Writes description.json, then the figure, then index.html; returns its path, or that of
    description.json if the plotting packages are not installed."""
    folder = as_path(folder)
    numbers = write(folder / FILE, json.dumps(about, indent=1) + "\n")
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.description.figures import figure

    drawn = [figure(about)]
    specs = draw(folder, drawn)
    title = f"Description length of {label(PurePath(about['file']).name)}"
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            f'<p class="quiet">{about["bytes"]:,} bytes of text, {len(about["rows"])} models.</p>',
            f'<section class="cards">{cards(about)}</section>',
            f'<div class="figures">{figure_block(drawn[0])}</div>',
            table(about),
            left_out(about),
            f'<section class="panel"><h2>Methods</h2><p>{escape(METHOD)}</p>'
            f"<pre>{escape((about.get('made') or {}).get('command', ''))}</pre></section>",
        ]
    )
    return write(folder / "index.html", frame(title, body, specs))


def cards(about: dict[str, Any]) -> str:
    """The shortest description in each form, and the best of the other programs."""
    shown = []
    for name, run in about["best"].items():
        row = next(row for row in about["rows"] if row["run"] == run)
        note = escape(f"{label(run)}, {amount(row['params'])} parameters")
        shown.append(card(NAMES[name], f"{row['total_bytes'][name]:,} bytes", note))
    able = [row for row in about["others"] if "bytes" in row]
    if able:
        other = min(able, key=lambda row: row["bytes"])
        note = escape(f"{other['setting']}, no model")
        shown.append(card(other["name"], f"{other['bytes']:,} bytes", note))
    return "\n".join(shown)


def table(about: dict[str, Any]) -> str:
    """One row for each trial: text, model and sum in each form, minima in bold."""
    rows = []
    for row in about["rows"]:
        cells = [escape(label(row["run"])), amount(row["params"])]
        cells.append(f"{8 * row['text_bytes']['float32'] / about['bytes']:.4f}")
        for name in NAMES:
            if name not in row["total_bytes"]:
                cells.append("—")
                continue
            parts = f"{row['text_bytes'][name]:,} + {row['model_bytes'][name]:,}"
            total = f"{row['total_bytes'][name]:,}"
            strong = f"<b>{total}</b>" if about["best"][name] == row["run"] else total
            cells.append(f"{strong} <small>= {parts}</small>")
        pays = row["pays_from"]
        cells.append(amount(pays) if pays else "—")
        rows.append(table_row(cells))
    than = escape(about["than"]) if about["than"] else "the others"
    names = ["trial", "parameters", "bits/byte", *(f"{n}: text + model" for n in NAMES.values())]
    return section("Models", [*names, f"shorter than {than} from, bytes"], rows)


def left_out(about: dict[str, Any]) -> str:
    """The trials without a row, and why."""
    if not about["left_out"]:
        return ""
    rows = [
        f"<tr><td>{escape(label(one['run']))}</td><td>{escape(one['reason'])}</td></tr>"
        for one in about["left_out"]
    ]
    return section("Left out", ["trial", "why"], rows)
