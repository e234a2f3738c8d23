"""The page of a comparison of ladders, with its figures; it opens offline."""

import json
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import altair as alt
import numpy as np

from scaling.report.axes import (
    BLUE,
    FLOPS,
    GREEN,
    GREY,
    INK,
    ORANGE,
    TOOLTIP,
    VERMILION,
    Rows,
    baseline_layers,
    baseline_rows,
    data,
    finish,
    log_axis,
    loss_axis,
    power_of_ten,
    shown,
    run_row,
)
from scaling.fits.comparison import Ladder, measured_in
from scaling.report.figures import Figure
from scaling.drafts import write
from scaling.report.page import PAGE, PNG_SCALE, card, figure_block, fluid_spec
from scaling.report.wording import escape, interval_html

PURPLE, SKY = "#CC79A7", "#56B4E9"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, INK)
RATIOS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7),
    *(2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100),
)
HEADLINE_MARK = "⚠ "
Comparison = dict[str, Any]


def colour(names: Sequence[str], listed: Sequence[str], orient: str) -> alt.Color:
    """One colour for each ladder in all figures; the legend lists those that are drawn."""
    scale = alt.Scale(domain=list(names), range=list(PALETTE[: len(names)]))
    legend = alt.Legend(title=None, orient=orient, labelLimit=320, values=list(listed))
    return alt.Color("Ladder:N", scale=scale, sort=list(names), legend=legend)


def alarm(chart: alt.LayerChart, compared: Comparison) -> alt.LayerChart:
    """The chart with what forbids the comparison written over it, so that no copy goes without."""
    texts = [w["message"] for w in compared["warnings"] if w["code"] == "dataset"]
    if not texts:
        return chart
    head, _, rest = texts[0].partition(": ")
    title = alt.Title(
        text=HEADLINE_MARK + head, subtitle=rest, color=VERMILION, subtitleColor=VERMILION,
        anchor="start", fontSize=15, limit=700,
    )  # fmt: skip
    return chart.properties(title=title)


def frontiers(ladders: Sequence[Ladder], compared: Comparison) -> Figure:
    """Every ladder's runs and frontier with its band; the losses that are compared are shaded."""
    dots, lines = [], []
    for ladder, part in zip(ladders, compared["ladders"], strict=True):
        points = measured_in(ladder.points.select(~ladder.points.holdout), compared["measure"])
        own = {"Ladder": ladder.name}
        dots += [run_row(points, row) | own for row in shown(points)]
        lines += [{"C": c, "Loss": v, "lo": lo, "hi": hi} | own for c, v, lo, hi in part["band"]]
    common = [pair["losses"] for pair in compared["pairs"] if "losses" in pair]
    rows = [*dots, *lines]
    heights = [row[key] for row in rows for key in ("Loss", "lo", "hi") if row.get(key)]
    counted = [row for ladder in ladders for row in baseline_rows(ladder.points)]
    if compared["measure"] != "loss":
        counted = []  # their loss is known in nats per token alone
    heights += [row["Loss"] for row in counted]
    flops = [row["C"] for row in [*rows, *counted] if row["C"]]
    x = log_axis(np.array(flops), FLOPS, power_of_ten)
    y = loss_axis(np.array(heights), f"Loss ({compared['unit']})")
    names = [part["name"] for part in compared["ladders"]]
    color = colour(names, names, "top-right")
    at = {"x": alt.X("C:Q", **x), "y": alt.Y("Loss:Q", **y), "color": color}
    edges = {"x": at["x"], "y": alt.Y("lo:Q", **y), "y2": "hi:Q", "color": color}
    shade = [{"low": low, "high": high} for low, high in common]
    layers = [
        alt.Chart(data(shade))
        .mark_rect(color=GREY, opacity=0.13)
        .encode(y=alt.Y("low:Q", **y), y2="high:Q"),
        alt.Chart(data(dots)).mark_circle(size=40, opacity=0.55).encode(**at, tooltip=[
            alt.Tooltip("Ladder:N"), *TOOLTIP]),
        alt.Chart(data(lines)).mark_line(strokeWidth=2.2).encode(**at),
    ]  # fmt: skip
    if lines[0]["lo"] is not None:
        layers.insert(1, alt.Chart(data(lines)).mark_area(opacity=0.2).encode(**edges))
    layers += baseline_layers(counted, "C", {"x": at["x"], "y": at["y"]})
    caption = (
        "All runs, and the lowest loss that compute buys on each ladder, with its 90 % interval "
        f"({compared['method']} method). The losses that are compared are shaded."
    )
    chart = alarm(alt.layer(*layers), compared)
    return Figure("frontiers", "Loss against compute", caption, finish(chart))


def multipliers(compared: Comparison) -> Figure | None:
    """The compute multiplier of every pair against the loss, with its band."""
    rows: Rows = []
    for pair in compared["pairs"]:
        for loss, value, low, high in pair["at"]:
            band = {"Loss": loss, "Multiplier": value, "lo": low, "hi": high}
            rows.append(band | {"Ladder": pair["other"]})
    if not rows:
        return None
    names = [part["name"] for part in compared["ladders"]]
    x = loss_axis(np.array([row["Loss"] for row in rows]), f"Loss ({compared['unit']})")
    x["scale"].reverse = True
    heights = [row[key] for row in rows for key in ("Multiplier", "lo", "hi") if row[key]]
    title = f"Times less compute than {names[0]}"
    y = ratio_axis(np.array([*heights, 1.0]), title)
    color = colour(names, names[1:], "right")
    at = {"x": alt.X("Loss:Q", **x), "color": color}
    tips = [
        alt.Tooltip("Ladder:N"), alt.Tooltip("Loss:Q", format=".4f"),
        alt.Tooltip("Multiplier:Q", format=".3f"),
    ]  # fmt: skip
    base = alt.Chart(data(rows))
    even = alt.Chart(data([{"Multiplier": 1}])).mark_rule(color=INK, strokeDash=[4, 3])
    lines = base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=22))
    layers = [
        even.encode(y=alt.Y("Multiplier:Q", **y)),
        lines.encode(**at, y=alt.Y("Multiplier:Q", **y), tooltip=tips),
    ]
    if rows[0]["lo"] is not None:
        band = base.mark_area(opacity=0.2).encode(**at, y=alt.Y("lo:Q", **y), y2="hi:Q")
        layers.insert(1, band)
    caption = (
        f"How many times the compute {names[0]} needs for the same loss, over the losses that both "
        "reach, with 90 % intervals. On the dashed line they are equal; losses fall to the right."
    )
    chart = finish(alarm(alt.layer(*layers), compared), height=280)
    return Figure("multiplier", "Compute multiplier", caption, chart)


def ratio_axis(values: np.ndarray, title: str) -> dict[str, Any]:
    """A logarithmic axis about 1 with round ratios on it."""
    low, high = float(values.min()) / 1.08, float(values.max()) * 1.08
    ticks = [tick for tick in RATIOS if low <= tick <= high]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return {"scale": scale, "axis": alt.Axis(values=ticks, format="~g"), "title": title}


def figures(ladders: Sequence[Ladder], compared: Comparison) -> list[Figure]:
    """The figures of the page."""
    return [f for f in (frontiers(ladders, compared), multipliers(compared)) if f is not None]


def write_page(folder: str | Path, ladders: Sequence[Ladder], compared: Comparison) -> Path:
    """Writes comparison.json, the figures as PNG and SVG, and last index.html: its path."""
    import vl_convert

    folder, drawn = Path(folder), figures(ladders, compared)
    specs = {figure.name: figure.chart.to_dict() for figure in drawn}
    for name, spec in specs.items():
        write(folder / "figures" / f"{name}.png", vl_convert.vegalite_to_png(spec, scale=PNG_SCALE))
        write(folder / "figures" / f"{name}.svg", vl_convert.vegalite_to_svg(spec))
    write(folder / "comparison.json", json.dumps(compared, indent=1) + "\n")
    return write(
        folder / "index.html", page(compared, drawn, specs, vl_convert.javascript_bundle())
    )


def page(compared: Comparison, drawn: list[Figure], specs: dict[str, dict], script: str) -> str:
    """The report's looks around the comparison's own content."""
    head, _, rest = PAGE.read_text(encoding="utf-8").partition("<main>")
    tail = rest.partition("</main>")[2]
    names = " against ".join(part["name"] for part in compared["ladders"])
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
            method(compared),
            cited(compared),
        ]
    )
    fluid = {name: fluid_spec(spec) for name, spec in specs.items()}
    around = Template(f"{head}<main>\n$body\n</main>{tail}")
    return around.substitute(
        title=escape(names),
        body=body,
        # "</" would end the script element from inside a string.
        specs=json.dumps(fluid).replace("</", "<\\/"),
        library=script.replace("</script", "<\\/script"),
    )


def warned(compared: Comparison) -> str:
    """The warnings, first of all."""
    items = "".join(f"<li><b>{escape(w['message'])}</b></li>" for w in compared["warnings"])
    if not items:
        return ""
    return (
        f'<section class="panel warn"><h2>Warnings</h2><ul class="warnings">{items}</ul></section>'
    )


def cards(compared: Comparison) -> str:
    """The multiplier of each pair, and whether it is significant."""
    blocks = []
    for pair in compared["pairs"]:
        title = f"{pair['other']} against {pair['baseline']}"
        if "reason" in pair:
            blocks.append(card(title, "—", escape(pair["reason"]), "bad"))
            continue
        known = {True: "significant", False: "not significant", None: "no interval"}
        p = "" if pair["p"] is None else f", p = {pair['p']:.2g}"
        note = f"times less compute at equal loss; {known[pair['significant']]}{p}"
        value = "× " + interval_html(pair["multiplier"], ".3f")
        blocks.append(card(title, value, note, "good" if pair["significant"] else ""))
    return "\n".join(blocks)


def table(compared: Comparison) -> str:
    """One row for each ladder."""
    rows = []
    for part in compared["ladders"]:
        c, reach = part["flops"], part["reach"]
        cells = [
            escape(part["name"]), str(part["n"]), f"{c[0]:.3g} to {c[1]:.3g}",
            f"{reach[0]:.4f} to {reach[1]:.4f}",
            escape(", ".join(v[:16] for v in part["datasets"]) or "unknown"),
            f"<code>{part['sha256'][:16]}</code>",
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    names = (
        "ladder", "points", "compute (FLOPs)", f"frontier's losses ({compared['unit']})", "data",
        "SHA-256 of the points",
    )  # fmt: skip
    return section("Ladders", names, rows)


def pairs(compared: Comparison) -> str:
    """One row for each pair: the multiplier by either method, and whether it grows."""
    rows = []
    for pair in compared["pairs"]:
        if "reason" in pair:
            continue
        other = pair.get("second_opinion") or {"method": "", "value": None}
        losses = " to ".join(f"{loss:.4f}" for loss in pair["losses"])
        known = "" if pair["trend_p"] is None else f"p = {pair['trend_p']:.2g}"
        cells = [
            escape(f"{pair['other']} against {pair['baseline']}"), losses,
            interval_html(pair["multiplier"], ".3f"),
            interval_html(other, ".3f") + f" <small>{other['method']}</small>",
            interval_html(pair["trend"], ".3f") + f" <small>{known}</small>",
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    names = (
        "pair", "losses compared", f"multiplier, {compared['method']}",
        "by the other method", "at the lowest loss over at the highest",
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
    """What a reader needs to make these numbers again."""
    made = compared.get("made") or {}
    lines = [("command", made.get("command")), ("commit", made.get("commit"))]
    lines += [(f"points, {part['name']}", part["sha256"]) for part in compared["ladders"]]
    width = max(len(name) for name, _ in lines)
    text = "\n".join(f"{name:<{width}}  {value}" for name, value in lines if value)
    return (
        '<section class="panel"><h2>How to cite these numbers</h2>'
        f"<pre>{escape(text)}</pre></section>"
    )


def method(compared: Comparison) -> str:
    """A paragraph that a paper could quote."""
    chosen, pairs = compared["settings"], len(compared["pairs"])
    text = (
        "The multiplier is the ratio of the computes at which two ladders' frontiers reach the "
        "same loss, averaged geometrically over losses evenly spaced where both frontiers lie "
        f"within their own runs. Intervals hold {chosen['level']:.0%} of {chosen['draws']} "
        "bootstrap draws, independent between ladders; a multiplier is called significant where "
        f"its two-sided p is below {chosen['alpha']:g}"
        + (f" / {pairs} (Bonferroni)." if pairs > 1 else ".")
    )
    return f'<section class="panel"><h2>How it was made</h2><p>{escape(text)}</p></section>'
