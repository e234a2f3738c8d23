"""The figures of post-training quantisation: loss, and what is added to it, against bits."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from scaling.laws.precision import SIGNIFICANT, significant
from scaling.report.axes import PALETTE, Figure, Rows, data, finish, log_axis, loss_axis
from scaling.report.number_text import amount, label, three_digits

BITS = "Bits per weight, with scales"
ADDED = "Loss added (nats per token)"
ROOM = 0.5  # nats above the worst model before, up to which the curve is drawn


def figures(points: Sequence[dict[str, Any]]) -> list[Figure]:
    """The precision curve, and the degradation on a logarithmic axis if any is above its error."""
    found = [curve(points)]
    if any(map(significant, points)):
        found.append(degradation([point for point in points if significant(point)]))
    return found


def curve(points: Sequence[dict[str, Any]]) -> Figure:
    """Loss against bits for each model, with the loss before quantising as a dashed line."""
    rows: Rows = [row(point) for point in points]
    for one in rows:
        one |= {"Low": one["Loss"] - one["SE"], "High": one["Loss"] + one["SE"]}
    top = max(one["Before"] for one in rows) + ROOM
    losses = np.array([v for one in rows for v in (one["Low"], one["High"], one["Before"])])
    cut = int((losses > top).any())
    x = alt.X("Bits:Q", title=BITS, scale=alt.Scale(zero=False, nice=True))
    y = alt.Y("Loss:Q", **loss_axis(np.minimum(losses, top)))
    color, shape = colour(rows), way(rows)
    base = alt.Chart(data(rows))
    lines = base.mark_line(strokeWidth=1.5, opacity=0.8, clip=True).encode(
        x=x, y=y, color=color, detail="Series:N", strokeDash=dashes(rows)
    )
    bars = base.mark_rule(strokeWidth=1.5, clip=True).encode(
        x=x, y="Low:Q", y2="High:Q", color=color
    )
    marks = base.mark_point(size=60, filled=True, opacity=1, clip=True).encode(
        x=x, y=y, color=color, shape=shape, tooltip=TIPS
    )
    before = base.mark_rule(strokeDash=[2, 3], opacity=0.6).encode(y="Before:Q", color=color)
    caption = (
        "Validation loss of each model with its matrices in few bits. Bars: one standard error of "
        "the change, over the same sequences. Dotted: the model before."
    ) + f" Losses above {top:.2f} are cut off; the table has them." * cut
    chart = finish(before + lines + bars + marks)
    return Figure("precision_curve", "Precision curve", caption, chart)


def degradation(points: Sequence[dict[str, Any]]) -> Figure:
    """The added loss on a logarithmic axis, on which the law of Kumar et al. 2024 is straight."""
    rows: Rows = [row(point) for point in points]
    x = alt.X("Bits:Q", title=BITS, scale=alt.Scale(zero=False, nice=True))
    values = np.array([one["Added"] for one in rows])
    y = alt.Y("Added:Q", **log_axis(values, ADDED, three_digits))
    base = alt.Chart(data(rows))
    lines = base.mark_line(strokeWidth=1.5, opacity=0.8).encode(
        x=x, y=y, color=colour(rows), detail="Series:N", strokeDash=dashes(rows)
    )
    marks = base.mark_point(size=60, filled=True, opacity=1).encode(
        x=x, y=y, color=colour(rows), shape=way(rows), tooltip=TIPS
    )
    caption = (
        f"Changes that are above 0 by {SIGNIFICANT} standard errors. An exponential in the bits is "
        "a straight line (Kumar et al. 2024, section 3)."
    )
    return Figure("degradation", "What few bits add", caption, finish(lines + marks, height=320))


TIPS = [alt.Tooltip(f"{name}:N") for name in ("Run", "Format", "Parameters")]
TIPS += [alt.Tooltip("Bits:Q", format=".2f"), alt.Tooltip("Loss:Q", format=".4f")]
TIPS += [alt.Tooltip("Added:Q", format="+.5f"), alt.Tooltip("SE:Q", format=".5f")]


def row(point: dict[str, Any]) -> dict[str, Any]:
    """A point as a row of a chart's data."""
    way = "GPTQ" if point["calibrate"] else "nearest"
    way += ", int8 inputs" if point["activations"] else ""
    name = label(point["run"].rstrip("/").rpartition("/")[2])
    return {
        "Run": name,
        "Series": f"{name} {way}",
        "Rounding": way,
        "Format": point["format"],
        "Parameters": amount(point["params"]),
        "N": point["params"],
        "Bits": point["bits"],
        "Loss": point["loss"],
        "Before": point["loss_before"],
        "Added": point["degradation"],
        "SE": point["degradation_se"] or 0.0,
    }


def colour(rows: Rows) -> alt.Color:
    """A colour for each size, from small to large."""
    sizes = list(dict.fromkeys(one["Parameters"] for one in sorted(rows, key=lambda one: one["N"])))
    palette = [PALETTE[i % len(PALETTE)] for i in range(len(sizes))]
    legend = alt.Legend(title="Parameters") if len(sizes) > 1 else None
    scale = alt.Scale(domain=sizes, range=palette)
    return alt.Color("Parameters:N", scale=scale, sort=sizes, legend=legend)


def way(rows: Rows) -> alt.Shape:
    """A mark for each way to round."""
    several = len({one["Rounding"] for one in rows}) > 1
    return alt.Shape("Rounding:N", legend=alt.Legend(title="Rounding") if several else None)


def dashes(rows: Rows) -> alt.StrokeDash:
    """A dash for each way to round, which the legend of `way` names."""
    return alt.StrokeDash("Rounding:N", legend=None)
