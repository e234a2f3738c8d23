"""The HTML page of a comparison of ladders. It works offline."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling.drafts import as_path, write
from scaling.fits.comparison import Ladder
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import (
    amount,
    escape,
    interval_html,
    label,
    needed,
    prose,
    three_digits,
)
from scaling.report.page import card, draw, figure_block, remove_page, table_row

Comparison = dict[str, Any]


def write_page(folder: str | Path, ladders: Sequence[Ladder], compared: Comparison) -> Path:
    """Writes comparison.json, then the figures as PNG and SVG, then index.html; returns its path.

    If the plotting packages are not installed, writes only comparison.json and returns its path.
    """
    folder = as_path(folder)
    numbers = write(folder / "comparison.json", json.dumps(compared, indent=1) + "\n")
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.comparison_figures import figures

    drawn = figures(ladders, compared)
    whole = page(ladders, compared, drawn, draw(folder, drawn))
    return write(folder / "index.html", whole)


def page(
    ladders: Sequence[Ladder], compared: Comparison, drawn: list[Any], specs: dict[str, dict]
) -> str:
    """The whole page as text, in the style of the report."""
    names = " against ".join(label(part["name"]) for part in compared["ladders"])
    body = "\n".join(
        [
            f"<h1>{escape(names)}</h1>",
            f'<p class="quiet">Compute at equal loss; {escape(compared["method"])} method.</p>',
            warned(compared),
            f'<section class="cards">{cards(compared)}</section>',
            '<div class="figures">'
            + "\n".join(figure_block(figure) for figure in drawn)
            + "</div>",
            pairs(compared),
            table(compared),
            counted(ladders),
            method(compared),
            cited(compared),
        ]
    )
    return frame(names, body, specs)


def warned(compared: Comparison) -> str:
    """The warnings, as the first panel."""
    items = "".join(f"<li><b>{prose(w['message'])}</b></li>" for w in compared["warnings"])
    if not items:
        return ""
    return (
        f'<section class="panel warn"><h2>Warnings</h2><ul class="warnings">{items}</ul></section>'
    )


def cards(compared: Comparison) -> str:
    """The compute that each ladder needs, and whether the difference is significant."""
    blocks = []
    for pair in compared["pairs"]:
        other, first = label(pair["other"]), label(pair["baseline"])
        if "reason" in pair:
            blocks.append(card(f"{other} against {first}", "—", prose(pair["reason"]), "bad"))
            continue
        known = {True: "significant", False: "not significant", None: "no interval"}
        p = "" if pair["p"] is None else f", p = {pair['p']:.2g}"
        note = (
            f"times the compute of {escape(first)} for equal loss; {known[pair['significant']]}{p}"
        )
        value = interval_html(needed(pair["multiplier"]))
        blocks.append(card(f"{other} needs", value, note, "good" if pair["significant"] else ""))
    return "\n".join(blocks)


def table(compared: Comparison) -> str:
    """One row per ladder."""
    rows = []
    for part in compared["ladders"]:
        c, reach = part["flops"], part["reach"]
        cells = [
            escape(label(part["name"])), str(part["n"]),
            f"{three_digits(c[0])} to {three_digits(c[1])}",
            f"{reach[0]:.4f} to {reach[1]:.4f}", interval_html(part["slope"]),
            escape(", ".join(v[:16] for v in part["datasets"]) or "unknown"),
            f"<code>{part['sha256'][:16]}</code>",
        ]  # fmt: skip
        rows.append(table_row(cells))
    names = (
        "ladder", "points", "compute (FLOPs)", f"losses of the frontier ({compared['unit']})",
        slopes(compared), "data", "SHA-256 of the points",
    )  # fmt: skip
    return section("Ladders", names, rows)


def slopes(compared: Comparison) -> str:
    """The title of the column of slopes."""
    if not compared["common_flops"]:
        return "slope"
    low, high = map(three_digits, compared["common_flops"])
    return f"slope of log L in log C from {low} to {high} FLOPs"


def counted(ladders: Sequence[Ladder]) -> str:
    """One row per counted model, with the operations of counting it."""
    rows = []
    for one in sorted((b for x in ladders for b in x.points.baselines), key=lambda b: b.loss):
        error = f" ± {one.loss_se:.4f}" if np.isfinite(one.loss_se) else ""
        counts = [amount(n) if np.isfinite(n) and n > 0 else "—" for n in (one.params, one.tokens)]
        flops = three_digits(one.flops) if np.isfinite(one.flops) else "—"
        cells = [escape(label(one.id)), escape(label(one.family)), *counts, flops]
        cells.append(f"{one.loss:.4f}{error}")
        rows.append(table_row(cells))
    names = (
        "model",
        "family",
        "counts kept",
        "tokens",
        "counting operations",
        "loss (nats per token)",
    )
    return section("Counted models", names, rows) if rows else ""


def pairs(compared: Comparison) -> str:
    """One row per pair: the compute needed by either method, and the trend of the multiplier."""
    rows = []
    for pair in compared["pairs"]:
        if "reason" in pair:
            continue
        other = pair.get("second_opinion") or {"method": "", "value": None}
        losses = " to ".join(f"{loss:.4f}" for loss in pair["losses"])
        known = "" if pair["trend_p"] is None else f"p = {pair['trend_p']:.2g}"
        cells = [
            escape(f"{label(pair['other'])} against {label(pair['baseline'])}"), losses,
            interval_html(needed(pair["multiplier"])),
            interval_html(needed(other)) + f" <small>{other['method']}</small>",
            interval_html(needed(pair["trend"])) + f" <small>{known}</small>",
        ]  # fmt: skip
        rows.append(table_row(cells))
    names = (
        "pair", f"losses compared ({compared['unit']})",
        f"times the compute, {compared['method']} method", "by the other method",
        "the factor at the lowest of these losses, divided by that at the highest",
    )  # fmt: skip
    return section("Pairs", names, rows) if rows else ""


def section(title: str, names: Sequence[str], rows: Sequence[str]) -> str:
    """A table in its panel."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    return (
        f'<section class="panel"><h2>{title}</h2>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></section>"
    )


def cited(compared: Comparison) -> str:
    """The information needed to reproduce the numbers."""
    made = compared.get("made") or {}
    lines = [("command", made.get("command")), ("commit", made.get("commit"))]
    lines += [(f"points, {label(part['name'])}", part["sha256"]) for part in compared["ladders"]]
    width = max(len(name) for name, _ in lines)
    text = "\n".join(escape(f"{name:<{width}}  {value}") for name, value in lines if value)
    return f'<section class="panel"><h2>How to cite these numbers</h2><pre>{text}</pre></section>'


def method(compared: Comparison) -> str:
    """The methods paragraph."""
    chosen, pairs = compared["settings"], len(compared["pairs"])
    text = (
        "The compute that a ladder needs is the ratio of the FLOPs at which the two frontiers "
        "reach the same loss. We take the geometric mean over evenly spaced losses that both "
        "frontiers reach within the compute of their runs. comparison.json has the inverse ratio, "
        "multiplier. A slope is -Δ log L / Δ log C of a frontier between the ends of the compute "
        "that all ladders cover. "
        f"Intervals contain {chosen['level']:.0%} of {chosen['draws']} bootstrap "
        "draws, independent between ladders. A ratio is significant if "
        f"its two-sided p is below {chosen['alpha']:g}"
        + (f" / {pairs} (Bonferroni)." if pairs > 1 else ".")
    )
    return f'<section class="panel"><h2>Methods</h2><p>{escape(text)}</p></section>'
