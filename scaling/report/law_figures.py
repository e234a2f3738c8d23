"""Figures of the fitted law: contours in the plane of N and D, residuals, the uncertainty of its
constants, and their sensitivity to the analysis.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from scaling.laws import LAWS
from scaling.laws.law import symbols
from scaling.laws.optimal_split import optimal_params
from scaling.report.axes import (
    BLUE,
    FLOPS,
    GREEN,
    GREY,
    INK,
    ORANGE,
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
    log_color,
    loss_axis,
    response_title,
    run_row,
    shown,
)
from scaling.report.number_text import amount, deviation, label, power_of_ten
from scaling.table import Points

Law = dict[str, Any]
CONTOURS = 9
FINENESS = 160
AXES = {"tokens": TOKENS, "params": PARAMS, "flops": FLOPS}
LABEL_AT = 0.85  # position of a contour's label, as a fraction of its length
GROUPS = {
    "approach": ("method", BLUE),
    "objective": ("robust loss", ORANGE),
    "outliers": ("fewer runs", GREEN),
    "convention": ("count of N, C", VERMILION),
}


def plane(points: Points, law: Law) -> Figure | None:
    """The runs in the plane of N and D, the law's contours of loss and its efficient frontier."""
    if not law["optimum"]:
        return None
    theta = split_coordinates(law)
    counted = [row for row in baseline_rows(points) if row["N"] and row["D"]]
    every_n = [*points.params, *(row["N"] for row in counted)]
    every_d = [*points.tokens, *(row["D"] for row in counted)]
    n_span = min(every_n) / 1.6, max(every_n) * 1.6
    d_span = min(every_d) / 1.6, max(every_d) * 1.6
    x = log_axis(np.array(n_span), PARAMS, amount, pad=1.0)
    y = log_axis(np.array(d_span), TOKENS, amount, pad=1.0)
    at = {"x": alt.X("N:Q", **x), "y": alt.Y("D:Q", **y)}
    lines = contours(theta, n_span, d_span)
    levels = np.array([line["Loss"] for line in lines] + list(points.loss))
    scale = alt.Scale(
        type="log", scheme="viridis", reverse=True, domain=[levels.min(), levels.max()]
    )
    color = alt.Color(
        "Loss:Q", scale=scale, legend=alt.Legend(title="Loss (nats)", type="gradient")
    )
    named = [row for row in lines if row["Named"]]
    budgets = iso_compute(points, n_span, d_span)
    best = efficient(theta, points, n_span, d_span)
    runs = [run_row(points, row) for row in shown(points)]
    minima = [
        {"N": m["params"]["value"], "D": m["tokens"]["value"]}
        for m in law["isoflop"]["minima"] if m["params"]["value"]
    ]  # fmt: skip
    layers = [
        alt.Chart(data(budgets))
        .mark_line(color=GREY, strokeWidth=1, strokeDash=[2, 4], opacity=0.6)
        .encode(**at, detail="C:N"),
        alt.Chart(data(lines)).mark_line(strokeWidth=1.6)
        .encode(**at, color=color, detail="Loss:N"),
        alt.Chart(data(named)).mark_text(dy=-8, fontSize=11, color=INK)
        .encode(**at, text=alt.Text("Loss:Q", format=".2f")),
        alt.Chart(data(best)).mark_line(color=VERMILION, strokeWidth=2.5).encode(**at),
        alt.Chart(data(runs)).mark_point(size=55, filled=True, opacity=1, stroke="white",
                                         strokeWidth=0.6)
        .encode(**at, color=color, tooltip=TOOLTIP, shape=kind(points)),
        alt.Chart(data(minima)).mark_point(
            shape="diamond", size=130, color=VERMILION, filled=False, strokeWidth=2, opacity=1
        ).encode(**at),
    ]  # fmt: skip
    layers += baseline_layers(counted, "N", at)
    drawn = ", open diamonds the iso-FLOP minima" if minima else ""
    caption = (
        "Runs, coloured by loss, over the law's contours of equal loss. Red: the efficient "
        f"frontier N*(C), D*(C); dotted: equal compute, 6 N D{drawn}."
    )
    chart = finish(alt.layer(*layers), height=440)
    return Figure("plane", "Loss in the plane of N and D", caption, chart)


def split_coordinates(law: Law) -> np.ndarray:
    """log A, log B, log E, α, β [5] of the fitted law, which has a split."""
    part = law["parametric"]
    return LAWS[part["name"]].split_coordinates(np.array(part["coordinates"]))


def kind(points: Points) -> alt.Shape:
    """Circles for fitted runs, crosses for held-out runs."""
    scale = alt.Scale(domain=["fitted", "held out"], range=["circle", "cross"])
    legend = alt.Legend(title=None) if points.holdout.any() else None
    return alt.Shape("Kind:N", scale=scale, legend=legend)


def contours(theta: np.ndarray, n_span: tuple[float, float], d_span: tuple[float, float]) -> Rows:
    """Points on lines of equal loss, D(N) in closed form, within the spans."""
    a, b, e, alpha, beta = theta
    corner = [
        float(np.exp(a - alpha * np.log(n)) + np.exp(b - beta * np.log(d)) + np.exp(e))
        for n, d in zip(n_span, d_span, strict=True)
    ]
    levels = np.exp(e) + np.geomspace(corner[0] - np.exp(e), corner[1] - np.exp(e), CONTOURS + 2)
    log_n = np.linspace(*np.log(n_span), FINENESS)
    rows: Rows = []
    for level in levels[1:-1]:
        left = level - np.exp(e) - np.exp(a - alpha * log_n)
        with np.errstate(invalid="ignore", divide="ignore"):
            d = np.exp((b - np.log(left)) / beta)
        inside = np.flatnonzero((left > 0) & (d >= d_span[0]) & (d <= d_span[1]))
        middle = inside[round(LABEL_AT * (len(inside) - 1))] if len(inside) else -1
        rows += [
            {"Loss": float(level), "N": float(np.exp(log_n[i])), "D": float(d[i]),
             "Named": bool(i == middle)}
            for i in inside
        ]  # fmt: skip
    return rows


def iso_compute(points: Points, n_span: tuple[float, float], d_span: tuple[float, float]) -> Rows:
    """Lines of 6 N D = 10^k, for the powers of ten that the runs span."""
    spent = 6 * points.params * points.tokens
    powers = range(int(np.floor(np.log10(spent.min()))), int(np.ceil(np.log10(spent.max()))) + 1)
    rows: Rows = []
    for power in powers:
        low = max(n_span[0], 10.0**power / 6 / d_span[1])
        high = min(n_span[1], 10.0**power / 6 / d_span[0])
        if low < high:
            name = power_of_ten(10.0**power)
            rows += [{"C": name, "N": n, "D": 10.0**power / 6 / n} for n in (low, high)]
    return rows


def efficient(
    theta: np.ndarray,
    points: Points,
    n_span: tuple[float, float],
    d_span: tuple[float, float],
) -> Rows:
    """N*(C) and D*(C) of the law, within the spans."""
    spent = 6 * points.params * points.tokens
    flops = np.geomspace(spent.min() / 1e4, spent.max() * 1e4, 4 * FINENESS)
    n = optimal_params(theta, flops)
    d = flops / 6 / n
    inside = (n >= n_span[0]) & (n <= n_span[1]) & (d >= d_span[0]) & (d <= d_span[1])
    return [{"N": float(a), "D": float(b)} for a, b in zip(n[inside], d[inside], strict=True)]


def residuals(points: Points, law: Law) -> Figure | None:
    """Measured over predicted values, against tokens or, if tokens are unknown, the law's first
    input. Of a linear law measured minus predicted values.
    """
    part = law["parametric"]
    if part.get("objective") is None:
        return None
    fitted = LAWS[part["name"]]
    columns = points.columns()
    measured, predicted = (
        points.response(fitted),
        fitted.loss(np.array(part["coordinates"]), columns),
    )
    off = measured - predicted if fitted.linear else 100 * (measured / predicted - 1)
    title, unit = ("Measured minus law", "") if fitted.linear else ("Measured over law (%)", " (%)")
    name = "tokens" if np.isfinite(points.tokens).all() else fitted.inputs[0]
    rows = [
        run_row(points, row) | {"X": float(columns[name][row]), "Residual": float(off[row])}
        for row in shown(points)
    ]
    x = log_axis(columns[name], AXES.get(name, name.capitalize()), amount)
    sized = np.isfinite(points.params).all()
    color = log_color("N", points.params, PARAMS, amount) if sized else alt.value(BLUE)
    y = loss_axis(np.append(off, 0.0), title)
    tips = [*TOOLTIP, alt.Tooltip("Residual:Q", format="+.3f", title=f"Residual{unit}")]
    marks = alt.Chart(data(rows)).mark_point(size=65, filled=True, opacity=0.9)
    zero = alt.Chart(data([{"Residual": 0}])).mark_rule(color=INK, strokeDash=[4, 3])
    chart = zero.encode(y=alt.Y("Residual:Q", **y)) + marks.encode(
        x=alt.X("X:Q", **x),
        y=alt.Y("Residual:Q", **y),
        color=color,
        shape=kind(points),
        tooltip=tips,
    )
    caption = (
        f"Root mean square {deviation(part)}; a pattern here means that the law does not hold."
    )
    return Figure("residuals", "Residuals of the law", caption, finish(chart, height=300))


def by_input(parts: Sequence[tuple[str, Points, Law]]) -> Figure | None:
    """The response against the input, with the fitted law, of laws of one and the same input; each
    part has a name."""
    first = parts[0][2]["parametric"]
    if first.get("objective") is None or len(LAWS[first["name"]].inputs) > 1:
        return None
    fitted = LAWS[first["name"]]
    (column,) = fitted.inputs
    dots: Rows = []
    lines: Rows = []
    for name, points, law in parts:
        x, y = points.columns()[column], points.response(fitted)
        span = np.geomspace(x.min(), x.max(), FINENESS)
        curve = fitted.loss(np.array(law["parametric"]["coordinates"]), {column: span})
        about = {"Name": label(name)}
        dots += [run_row(points, row) | about | {"X": float(x[row]), "Y": float(y[row])}
                 for row in shown(points)]  # fmt: skip
        lines += [about | {"X": float(a), "Y": float(b)} for a, b in zip(span, curve, strict=True)]
    every = np.array([row["X"] for row in dots])
    x_axis = log_axis(every, AXES.get(column, column.capitalize()), amount)
    y_axis = loss_axis(np.array([row["Y"] for row in (*dots, *lines)]), response_title(parts[0][2]))
    names = list(dict.fromkeys(row["Name"] for row in dots))
    color = alt.Color(
        "Name:N",
        sort=names,
        scale=alt.Scale(domain=names, range=list(PALETTE[: len(names)])),
        legend=alt.Legend(title=None, labelLimit=320) if len(names) > 1 else None,
    )
    at = {"x": alt.X("X:Q", **x_axis), "y": alt.Y("Y:Q", **y_axis), "color": color}
    chart = alt.Chart(data(lines)).mark_line(strokeWidth=2).encode(**at) + alt.Chart(
        data(dots)
    ).mark_point(size=65, filled=True, opacity=0.9).encode(**at, tooltip=TOOLTIP)
    caption = f"Points: measured. Lines: {symbols(fitted.formula)}."
    return Figure("by_input", "The law", caption, finish(chart))


def clouds(law: Law) -> list[Figure]:
    """Bootstrap draws of pairs of constants, which show their correlation."""
    part = law["parametric"]
    drawn = part.get("cloud") or {}
    if not law["optimum"] or not drawn:
        return []
    _, _, floor, alpha, beta = part["split"]
    pairs = (
        ("exponents_cloud", alpha, beta, "Exponents", "α, of N", "β, of D"),
        ("floor_cloud", floor, "a", "Floor and split", "E (nats per token)", "Exponent a of N*(C)"),
    )
    figures = []
    for name, first, second, title, x_title, y_title in pairs:
        rows = [{"X": x, "Y": y} for x, y in zip(drawn[first], drawn[second], strict=True)
                if np.isfinite(x) and np.isfinite(y)]  # fmt: skip
        best = [{"X": part[first]["value"], "Y": part[second]["value"]}]
        x = alt.X("X:Q", **loss_axis(np.array([r["X"] for r in rows + best]), x_title))
        y = alt.Y("Y:Q", **loss_axis(np.array([r["Y"] for r in rows + best]), y_title))
        dots = alt.Chart(data(rows)).mark_circle(size=28, opacity=0.4, color=BLUE)
        fit = alt.Chart(data(best)).mark_point(
            shape="cross", size=150, filled=True, color=VERMILION, opacity=1
        )
        chart = finish(dots.encode(x=x, y=y) + fit.encode(x=x, y=y), 420, 320)
        caption = f"{len(rows)} bootstrap draws (dots) about the fit (red cross)."
        figures.append(Figure(name, f"{title}: bootstrap", caption, chart, half=True))
    return figures


def exponents(law: Law) -> Figure | None:
    """The exponent a from every analysis, with the interval of the selected one as a band."""
    rows = [
        {"Group": GROUPS[row["group"]][0], "Analysis": row["label"], **row["a"]}
        for row in law["sensitivity"]
    ]
    rows += [
        {"Group": GROUPS["convention"][0], "Analysis": f"N {row['params']}, C {row['flops']}",
         **row["parametric"]["a"]}
        for row in law["conventions"]
    ]  # fmt: skip
    rows = [row for row in rows if row["value"] is not None]
    if len(rows) < 2:
        return None
    values = np.array([row[k] for row in rows for k in ("value", "lo", "hi") if row[k] is not None])
    x = loss_axis(values, "Exponent a of N*(C)")
    order = [row["Analysis"] for row in rows]
    y = alt.Y("Analysis:N", sort=order, title=None, axis=alt.Axis(labelLimit=320, grid=True))
    groups = [name for name, _ in GROUPS.values() if name in {row["Group"] for row in rows}]
    colors = [color for name, color in GROUPS.values() if name in groups]
    color = alt.Color(
        "Group:N", sort=groups, scale=alt.Scale(domain=groups, range=colors),
        legend=alt.Legend(title=None, orient="top", columns=1),
    )  # fmt: skip
    tips = [alt.Tooltip("Analysis:N")] + [
        alt.Tooltip(f"{k}:Q", format=".4f") for k in ("value", "lo", "hi")
    ]
    base = alt.Chart(data(rows))
    layers = [
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X("lo:Q", **x), x2="hi:Q", y=y, color=color
        ),
        base.mark_circle(size=90, opacity=1).encode(
            x=alt.X("value:Q", **x), y=y, color=color, tooltip=tips
        ),
    ]  # fmt: skip
    chosen = law["parametric"].get("a")
    if law["optimum"] and chosen["lo"] is not None:
        band = alt.Chart(data([chosen])).mark_rect(color=GREY, opacity=0.18)
        layers.insert(0, band.encode(x=alt.X("lo:Q", **x), x2="hi:Q"))
    caption = (
        "The same runs with other analyses. Bars: 90 % intervals, if computed. Grey: the interval "
        "of the parametric law with the selected settings."
    )
    chart = finish(alt.layer(*layers), height=24 * len(rows) + 20)
    return Figure("sensitivity", "One exponent, many analyses", caption, chart)
