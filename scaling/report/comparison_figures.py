"""The figures of a comparison: the ladders' frontiers, the compute that each needs, their runs by
tokens and parameters, and the loss by position in the context."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from scaling.fits.comparison import Ladder, measured_in
from scaling.report.axes import (
    FLOPS,
    GREY,
    INK,
    PALETTE,
    PARAMS,
    TOKENS,
    TOOLTIP,
    VERMILION,
    Figure,
    Rows,
    baseline_layers,
    baseline_rows,
    data,
    finish,
    log_axis,
    loss_axis,
    run_row,
    shown,
)
from scaling.report.number_text import amount, label, needed, power_of_ten

RATIOS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7),
    *(2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100),
)
HEADLINE_MARK = "⚠ "
Comparison = dict[str, Any]


def colour(names: Sequence[str], listed: Sequence[str], orient: str) -> alt.Color:
    """One colour per ladder, the same in all figures. The legend shows the ladders in `listed`."""
    scale = alt.Scale(domain=list(names), range=list(PALETTE[: len(names)]))
    legend = alt.Legend(title=None, orient=orient, labelLimit=320, values=list(listed))
    return alt.Color("Ladder:N", scale=scale, sort=list(names), legend=legend)


def alarm(chart: alt.LayerChart, compared: Comparison) -> alt.LayerChart:
    """The chart with the warning about different datasets as its title, so that every copy of the
    figure shows it.
    """
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
    """Every ladder's runs and frontier with its band. The compared range of losses is shaded."""
    dots, lines = [], []
    for ladder, part in zip(ladders, compared["ladders"], strict=True):
        points = measured_in(ladder.points.select(~ladder.points.holdout), compared["measure"])
        name = {"Ladder": label(ladder.name)}
        dots += [run_row(points, row) | name for row in shown(points)]
        lines += [{"C": c, "Loss": v, "lo": lo, "hi": hi} | name for c, v, lo, hi in part["band"]]
    common = [pair["losses"] for pair in compared["pairs"] if "losses" in pair]
    rows = [*dots, *lines]
    heights = [row[key] for row in rows for key in ("Loss", "lo", "hi") if row.get(key)]
    counted = counted_rows(ladders, compared)
    if counted:  # they have no training compute in the usual sense: a line at the lowest loss
        counted = [min(counted, key=lambda row: row["Loss"]) | {"C": None}]
    heights += [row["Loss"] for row in counted]
    flops = [row["C"] for row in [*rows, *counted] if row["C"]]
    x = log_axis(np.array(flops), FLOPS, power_of_ten)
    y = loss_axis(np.array(heights), f"Loss ({compared['unit']})")
    names = [label(part["name"]) for part in compared["ladders"]]
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
        "All runs, and the lowest loss of each ladder at a given compute, with its 90 % interval "
        f"({compared['method']} method). The compared range of losses is shaded."
    )
    chart = alarm(alt.layer(*layers), compared)
    return Figure("frontiers", "Loss against compute", caption, finish(chart))


def counted_rows(ladders: Sequence[Ladder], compared: Comparison) -> Rows:
    """The counted models of all ladders, whose loss is known only in nats per token."""
    if compared["measure"] != "loss":
        return []
    return [row for ladder in ladders for row in baseline_rows(ladder.points)]


def against(
    ladders: Sequence[Ladder], compared: Comparison, count: str, title: str, name: str
) -> Figure:
    """Every run and every counted model by its tokens or parameters; `count` is D or N."""
    rows: Rows = []
    for ladder in ladders:
        points = measured_in(ladder.points.select(~ladder.points.holdout), compared["measure"])
        rows += [run_row(points, row) | {"Ladder": label(ladder.name)} for row in shown(points)]
    counted = [
        row | {"Ladder": row["Kind"]} for row in counted_rows(ladders, compared) if row[count]
    ]
    rows = [row for row in rows if row[count]]
    names = [label(part["name"]) for part in compared["ladders"]]
    kinds = [kind for kind in dict.fromkeys(row["Ladder"] for row in counted) if kind not in names]
    color = colour([*names, *kinds], [*names, *kinds], "right")
    x = log_axis(np.array([row[count] for row in [*rows, *counted]]), title, amount)
    y = loss_axis(
        np.array([row["Loss"] for row in [*rows, *counted]]), f"Loss ({compared['unit']})"
    )
    at = {"x": alt.X(f"{count}:Q", **x), "y": alt.Y("Loss:Q", **y), "color": color}
    tips = [alt.Tooltip("Ladder:N"), *TOOLTIP]
    layers = [alt.Chart(data(rows)).mark_circle(size=44, opacity=0.6).encode(**at, tooltip=tips)]
    if counted:
        marks = alt.Chart(data(counted)).mark_point(shape="square", size=60, filled=True)
        layers.append(marks.encode(**at, tooltip=tips))
    caption = f"All runs by their {title.lower()}."
    if counted:
        caption += (
            " Squares are counted models: their parameters are counts and their FLOPs counting "
            "operations, so they appear here and in no ratio of compute."
        )
    return Figure(
        name, f"Loss against {title.lower()}", caption, finish(alarm(alt.layer(*layers), compared))
    )


def positions(compared: Comparison) -> Figure | None:
    """The loss by position in the context, with standard errors: Kaplan et al. 2020, figure 7."""
    if not compared.get("positions"):
        return None
    rows: Rows = []
    for one in compared["positions"]:
        for part in one["bins"]:
            error = part["se"] or 0.0
            middle = (part["first"] * part["last"]) ** 0.5
            place = (
                str(part["first"])
                if part["first"] == part["last"]
                else f"{part['first']}–{part['last']}"
            )
            rows.append({
                "Ladder": label(one["ladder"]), "Run": label(one["run"]), "Position": middle,
                "Positions": place, "Loss": part["loss"], "lo": part["loss"] - error,
                "hi": part["loss"] + error,
            })  # fmt: skip
    names = list(dict.fromkeys(row["Ladder"] for row in rows))
    color = colour(names, names, "top-right")
    x = log_axis(
        np.array([row["Position"] for row in rows]), "Position in the context (tokens)", amount
    )
    y = loss_axis(np.array([row[key] for row in rows for key in ("lo", "hi")]))
    base = alt.Chart(data(rows))
    at = {"x": alt.X("Position:Q", **x), "color": color}
    tips = [
        alt.Tooltip("Ladder:N"), alt.Tooltip("Run:N"), alt.Tooltip("Positions:N"),
        alt.Tooltip("Loss:Q", format=".4f"),
    ]  # fmt: skip
    layers = [
        base.mark_area(opacity=0.2).encode(**at, y=alt.Y("lo:Q", **y), y2="hi:Q"),
        base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=26)).encode(
            **at, y=alt.Y("Loss:Q", **y), tooltip=tips),
    ]  # fmt: skip
    caption = (
        "The best of each ladder's largest runs, scored on its validation windows: the mean loss "
        "in each range of positions, plus and minus one standard error."
    )
    if any(one["counted"] for one in compared["positions"]):
        caption += " Counted models also see the text before the window."
    return Figure(
        "positions", "Loss by position in the context", caption, finish(alt.layer(*layers))
    )


def multipliers(compared: Comparison) -> Figure | None:
    """The compute that every ladder needs as a function of the loss, with its band."""
    rows: Rows = []
    for pair in compared["pairs"]:
        for loss, value, low, high in pair["at"]:
            needs = needed({"value": value, "lo": low, "hi": high})
            row = {"Loss": loss, "Compute": needs["value"], "lo": needs["lo"], "hi": needs["hi"]}
            rows.append(row | {"Ladder": label(pair["other"])})
    if not rows:
        return None
    names = [label(part["name"]) for part in compared["ladders"]]
    x = loss_axis(np.array([row["Loss"] for row in rows]), f"Loss ({compared['unit']})")
    x["scale"].reverse = True
    heights = [row[key] for row in rows for key in ("Compute", "lo", "hi") if row[key]]
    title = f"Compute needed, times that of {names[0]}"
    y = ratio_axis(np.array([*heights, 1.0]), title)
    color = colour(names, names[1:], "right")
    at = {"x": alt.X("Loss:Q", **x), "color": color}
    tips = [
        alt.Tooltip("Ladder:N"), alt.Tooltip("Loss:Q", format=".4f"),
        alt.Tooltip("Compute:Q", format=".3r", title="Times the compute"),
    ]  # fmt: skip
    base = alt.Chart(data(rows))
    even = alt.Chart(data([{"Compute": 1}])).mark_rule(color=INK, strokeDash=[4, 3])
    lines = base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=22))
    layers = [
        even.encode(y=alt.Y("Compute:Q", **y)),
        lines.encode(**at, y=alt.Y("Compute:Q", **y), tooltip=tips),
    ]
    if rows[0]["lo"] is not None:
        band = base.mark_area(opacity=0.2).encode(**at, y=alt.Y("lo:Q", **y), y2="hi:Q")
        layers.insert(1, band)
    caption = (
        f"How many times the compute of {names[0]} each ladder needs for the same loss, over the "
        "losses that both reach, with 90 % intervals. Below the dashed line it needs less; losses "
        "fall to the right."
    )
    chart = finish(alarm(alt.layer(*layers), compared), height=280)
    return Figure("multiplier", "Compute needed for the same loss", caption, chart)


def ratio_axis(values: np.ndarray, title: str) -> dict[str, Any]:
    """A logarithmic axis of ratios with ticks at round values."""
    low, high = float(values.min()) / 1.08, float(values.max()) * 1.08
    ticks = [tick for tick in RATIOS if low <= tick <= high]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return {"scale": scale, "axis": alt.Axis(values=ticks, format="~g"), "title": title}


def figures(ladders: Sequence[Ladder], compared: Comparison) -> list[Figure]:
    """The figures of the page."""
    drawn = [
        frontiers(ladders, compared),
        multipliers(compared),
        against(ladders, compared, "D", TOKENS, "tokens"),
        against(ladders, compared, "N", PARAMS, "parameters"),
        positions(compared),
    ]
    return [figure for figure in drawn if figure is not None]
