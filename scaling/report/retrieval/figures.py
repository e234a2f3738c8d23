"""The figures of an index: what it saves against its size, and on the model's scaling curve."""

from typing import Any

import altair as alt
import numpy as np

from scaling.report.axes import (
    BLUE,
    GREY,
    LOSS,
    PARAMS,
    VERMILION,
    Figure,
    Rows,
    data,
    finish,
    log_axis,
    loss_axis,
)
from scaling.report.number_text import amount, three_digits

SIZE = "Tokens of the index"
FINENESS = 80
ERRORS = 2.0  # standard errors of a bar


def figures(about: dict[str, Any]) -> list[Figure]:
    """All figures that the study supports; `about` is what `isoflop evaluate --retrieve` writes."""
    found = [saved(about)]
    if "law" in about:
        found.append(on_curve(about))
        if any(row["worth"]["value"] for row in about["sizes"]):
            found.append(worth(about))
    return found


def saved(about: dict[str, Any]) -> Figure:
    """Nats saved against the size of the index."""
    rows: Rows = []
    for row in about["sizes"]:
        error = ERRORS * (row["saved_se"] or 0.0)
        rows.append(
            {
                **{"Tokens": row["tokens"], "Index": amount(row["tokens"]), "Saved": row["saved"]},
                **{"Low": row["saved"] - error, "High": row["saved"] + error},
            }
        )
    values = np.array([[row["Low"], row["High"], 0.0] for row in rows])
    x = alt.X("Tokens:Q", **size_axis(rows))
    y = alt.Y("Saved:Q", **loss_axis(values, "Saved (nats per token)"))
    base = alt.Chart(data(rows))
    bars = base.mark_rule(strokeWidth=2, color=BLUE).encode(x=x, y=alt.Y("Low:Q"), y2="High:Q")
    tips = [alt.Tooltip("Index:N"), alt.Tooltip("Saved:Q", format=".4f")]
    line = base.mark_line(strokeWidth=2, color=BLUE, point=alt.OverlayMarkDef(size=60, color=BLUE))
    zero = alt.Chart(data([{"Saved": 0.0}])).mark_rule(strokeDash=[4, 4], color=GREY).encode(y=y)
    caption = "Bars: two standard errors, paired by text. Dashed: the model alone."
    return Figure(
        "saved", "Nats saved by the index", caption,
        finish(zero + bars + line.encode(x=x, y=y, tooltip=tips), height=300),
    )  # fmt: skip


def size_axis(rows: Rows) -> dict[str, Any]:
    """The axis of index sizes; wide enough for a labelled tick if there is only one size."""
    sizes = np.array([row["Tokens"] for row in rows])
    return log_axis(sizes, SIZE, amount, pad=1.25 if len(rows) > 1 else 4)


def on_curve(about: dict[str, Any]) -> Figure:
    """The law's loss against parameters for the run's tokens, and the run with each index: each at
    the loss of a larger model."""
    law, params = about["law"], about["params"]
    loss = lambda n: law["E"] + law["A"] * n ** -law["alpha"] + floor  # noqa: E731
    floor = law["B"] * about["trained_on"] ** -law["beta"]
    finite = [row["worth"]["value"] for row in about["sizes"] if row["worth"]["value"]]
    low, high = params / 4, 4 * params * max([1.0, *finite])
    span = np.geomspace(low, high, FINENESS)
    curve: Rows = [{"N": float(n), "Loss": float(loss(n))} for n in span]
    dots: Rows = [{"N": params, "Loss": float(loss(params)), "Index": "alone"}]
    steps: Rows = []
    for row in about["sizes"]:
        height = float(loss(params)) - row["saved"]
        dots.append({"N": params, "Loss": height, "Index": amount(row["tokens"])})
        if factor := row["worth"]["value"]:
            steps.append({"N": params, "Loss": height, "To": params * factor})
    values = np.array([row["Loss"] for row in (*curve, *dots)])
    x, y = (
        alt.X("N:Q", **log_axis(span, PARAMS, amount)),
        alt.Y("Loss:Q", **loss_axis(values, LOSS)),
    )
    line = alt.Chart(data(curve)).mark_line(strokeWidth=2, color=BLUE).encode(x=x, y=y)
    marks = alt.Chart(data(dots)).mark_point(size=60, filled=True, opacity=1, color=VERMILION)
    tips = [alt.Tooltip("Index:N"), alt.Tooltip("Loss:Q", format=".4f")]
    layers = line + marks.encode(x=x, y=y, tooltip=tips)
    if steps:
        rules = alt.Chart(data(steps)).mark_rule(strokeDash=[4, 4], color=GREY)
        layers = layers + rules.encode(x=x, y=y, x2="To:Q")
    caption = (
        f"Line: the law for models trained on {amount(about['trained_on'])} tokens. Points: the "
        "law's loss for the run, alone and less what each size of the index saves. A dashed line "
        "ends at the size of the model that reaches the same loss alone."
    )
    return Figure("on_curve", "The index on the scaling curve", caption, finish(layers))


def worth(about: dict[str, Any]) -> Figure:
    """The factor of size that the index replaces, with its interval, against its size."""
    rows: Rows = []
    for row in about["sizes"]:
        one = row["worth"]
        if one["value"] is None:
            continue
        low, high = (one[key] or one["value"] for key in ("lo", "hi"))
        rows.append(
            {
                **{"Tokens": row["tokens"], "Index": amount(row["tokens"])},
                **{"Factor": one["value"], "Low": low, "High": high},
                "Interval": f"{three_digits(low)} to {three_digits(high) if one['hi'] else '∞'}",
            }
        )
    values = np.array([[row["Low"], row["High"]] for row in rows])
    x = alt.X("Tokens:Q", **size_axis(rows))
    y = alt.Y("Factor:Q", **log_axis(values, "Times as many parameters", three_digits))
    base = alt.Chart(data(rows))
    bars = base.mark_rule(strokeWidth=2, color=BLUE).encode(x=x, y=alt.Y("Low:Q"), y2="High:Q")
    tips = [alt.Tooltip(f"{name}:N") for name in ("Index", "Interval")]
    tips.append(alt.Tooltip("Factor:Q", format=".3g"))
    marks = base.mark_point(size=70, filled=True, opacity=1, color=BLUE)
    caption = (
        "How many times larger a model, trained on the same tokens, has the loss of this model "
        "with the index. Bars: 90 % intervals of the law and of the measured saving."
    )
    return Figure(
        "worth", "What the index is worth", caption,
        finish(bars + marks.encode(x=x, y=y, tooltip=tips), height=300),
    )  # fmt: skip
