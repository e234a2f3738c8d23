"""The figure of the description length: bytes of model and text against the size of the model."""

from typing import Any

import altair as alt
import numpy as np

from scaling.report.axes import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PARAMS,
    PURPLE,
    VERMILION,
    Figure,
    data,
    finish,
    log_axis,
)
from scaling.report.number_text import amount, label

LINES = {
    "float32": ("model in float32 + text", BLUE),
    "bfloat16": ("model in bfloat16 + text", ORANGE),
    "zstd": ("bfloat16 by zstd + text", GREEN),
    "text": ("text alone", PURPLE),
}


def figure(about: dict[str, Any]) -> Figure:
    """One line for each form of the model, its minimum marked, beside other programs."""
    rows, best = [], []
    for name, (words, _) in LINES.items():
        line = [point(row, name, words) for row in about["rows"] if name in with_text(row)]
        rows += line
        if name != "text" and line:
            best.append(min(line, key=lambda row: row["Bytes"]))
    others = [
        {"Name": row["name"], "Bytes": row["bytes"]} for row in about["others"] if "bytes" in row
    ]
    y_values = np.array([row["Bytes"] for row in (*rows, *others)])
    x = alt.X("N:Q", **log_axis(np.array([row["N"] for row in rows]), PARAMS, amount))
    y = alt.Y("Bytes:Q", **log_axis(y_values, "Bytes", amount, pad=1.1))
    names = [words for words, _ in LINES.values()]
    scale = alt.Scale(domain=names, range=[colour for _, colour in LINES.values()])
    base = alt.Chart(data(rows)).encode(
        x=x,
        y=y,
        color=alt.Color(
            "Form:N", scale=scale, sort=names, legend=alt.Legend(title=None, labelLimit=260)
        ),
        tooltip=["Run:N", "Form:N", "Parameters:N", alt.Tooltip("Bytes:Q", format=",")],
    )  # fmt: skip
    marked = alt.Chart(data(best)).mark_point(size=190, strokeWidth=2.5, color=VERMILION, opacity=1)
    layers = [
        base.mark_line(strokeWidth=2),
        base.mark_point(size=45, filled=True, opacity=1),
        marked.encode(x=x, y=y),
    ]
    if others:
        rules = alt.Chart(data(others)).encode(y=y)
        layers.append(rules.mark_rule(color=INK, strokeDash=[2, 3]))
    for place, other in enumerate(others):  # beside one another: lines may be close
        text = alt.Chart(data([other])).mark_text(align="left", x=4 + 50 * place, dy=-6, color=INK)
        layers.append(text.encode(y=y, text="Name:N"))
    caption = (
        f"Bytes of a description of {about['bytes']:,} bytes of text. Circles mark the minima; "
        "dotted lines are other programs, which need no model."
    )
    return Figure("description", "Description length", caption, finish(alt.layer(*layers)))


def with_text(row: dict[str, Any]) -> dict[str, int]:
    """The bytes of the description in each form, and of the coded text alone."""
    return row["total_bytes"] | {"text": row["text_bytes"]["float32"]}


def point(row: dict[str, Any], name: str, words: str) -> dict[str, Any]:
    """A point of a line as a row of the chart's data."""
    about = {"Run": label(row["run"]), "N": row["params"], "Parameters": amount(row["params"])}
    return about | {"Form": words, "Bytes": with_text(row)[name]}
