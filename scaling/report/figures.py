"""The figures of a report: one Vega-Lite chart each, for the page and for print.

Figures use only `points` and law.json, so readers can redraw them.
"""

from collections.abc import Callable
from typing import Any

import altair as alt
import numpy as np

from scaling.intervals import interval_text
from scaling.laws.optimal_split import optimal_params
from scaling.report.axes import (
    BLUE,
    FLOPS,
    GREEN,
    GREY,
    INK,
    MOST_POINTS,
    ORANGE,
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
    log_loss_axis,
    loss_axis,
    response_title,
    run_row,
    shown,
)
from scaling.report.law_figures import (
    by_input,
    clouds,
    exponents,
    plane,
    residuals,
    split_coordinates,
)
from scaling.report.number_text import amount, label, nats, power_of_ten, three_digits
from scaling.table import Points

Law = dict[str, Any]
CLOSE_UPS = 3  # largest number of held-out runs for which the last prediction has its own figure
NAMED_BUDGETS = 8  # largest number of budgets with one legend entry each

PREDICTION, OUTCOME = "prediction, 90 % interval", "outcome"


def curves(points: Points, law: Law) -> Figure | None:
    """Loss curves: validation loss against compute during every run."""
    rows: Rows = []
    for row in shown(points) if points.curves else ():
        per_token = float(points.flops[row] / points.tokens[row])
        for _, tokens, loss in points.curves[row]:
            if tokens > 0 and np.isfinite(loss):
                so_far = {"D": tokens, "C": tokens * per_token, "Loss": float(loss)}
                text = {"Tokens": amount(tokens), "FLOPs": three_digits(tokens * per_token)}
                rows.append(run_row(points, row) | so_far | text | {"Row": row})
    if not rows:
        return None
    counted = baseline_rows(points)
    every = [*rows, *counted]
    losses, spent = (np.array([r[k] for r in every if r[k]]) for k in ("Loss", "C"))
    x, y = log_axis(spent, FLOPS, power_of_ten), log_loss_axis(losses)
    base = alt.Chart(data(rows)).encode(
        x=alt.X("C:Q", **x),
        y=alt.Y("Loss:Q", **y),
        color=log_color("N", points.params, PARAMS, amount),
        detail="Row:N",
    )
    dash = alt.StrokeDash(
        "Kind:N",
        scale=alt.Scale(domain=["fitted", "held out"], range=[[1, 0], [5, 3]]),
        legend=alt.Legend(title=None) if points.holdout.any() else None,
    )
    lines = base.mark_line(strokeWidth=1.8, opacity=0.85).encode(strokeDash=dash)
    dots = base.mark_circle(size=38, opacity=0.9).encode(tooltip=TOOLTIP)
    caption = "Validation loss against compute during every run; larger models are darker."
    layers = [lines, dots]
    lowest = [{"C": c, "Loss": loss} for c, _, _, loss in law["envelope"].get("line", [])]
    if lowest:
        line = alt.Chart(data(lowest)).mark_line(color=VERMILION, strokeWidth=2.5)
        layers.append(line.encode(x=alt.X("C:Q", **x), y=alt.Y("Loss:Q", **y)))
        caption += " Red: the envelope of approach 1."
    layers += baseline_layers(counted, "C", {"x": alt.X("C:Q", **x), "y": alt.Y("Loss:Q", **y)})
    return Figure("loss_curves", "Loss curves", caption, finish(alt.layer(*layers)))


def key(m: Law) -> dict[str, Any]:
    """The fields that identify the budget of a row."""
    return {"Budget": m["Budget"], "Compute": m["flops"]}


def isoflop(points: Points, law: Law) -> Figure | None:
    """Loss against size, with one parabola per budget."""
    minima = law["isoflop"]["minima"]
    row_of = {str(name): i for i, name in enumerate(points.run)}
    budgets = [m for m in minima if m["sizes"] >= 3]
    if not budgets:
        return None
    named = [{"Budget": f"{power_of_ten(m['flops'])} FLOPs", **m} for m in budgets]
    dots = [run_row(points, row_of[r]) | key(m) for m in named for r in m["runs"]]
    lines = [key(m) | {"N": n, "Loss": v} for m in named for n, v in m["parabola"]]
    best = [
        {"Budget": m["Budget"], "N": m["params"]["value"], "Loss": m["loss"]["value"],
         "Optimal N": interval_text(m["params"], amount),
         "Lowest loss": interval_text(m["loss"], nats)}
        for m in named if m["params"]["value"]
    ]  # fmt: skip
    counted = baseline_rows(points)
    every = [*dots, *lines, *best, *counted]
    x = log_axis(np.array([r["N"] for r in every if r["N"]]), PARAMS, amount)
    y = loss_axis(np.array([r["Loss"] for r in every]))
    at = {"x": alt.X("N:Q", **x), "y": alt.Y("Loss:Q", **y)}
    at |= {"color": budget_color(named), "detail": "Budget:N"}
    layers = [
        alt.Chart(data(lines)).mark_line(strokeWidth=2).encode(**at),
        alt.Chart(data(dots)).mark_circle(size=62, opacity=0.9).encode(**at, tooltip=TOOLTIP),
    ]
    if best:
        tips = [alt.Tooltip(f"{name}:N") for name in ("Budget", "Optimal N", "Lowest loss")]
        mark = alt.Chart(data(best)).mark_point(
            shape="diamond", size=150, filled=True, opacity=1, color=VERMILION
        )
        layers.append(mark.encode(x=at["x"], y=at["y"], tooltip=tips))
    layers += baseline_layers(counted, "N", {"x": at["x"], "y": at["y"]})
    bracketed = sum(m["params"]["value"] is not None for m in named)
    caption = (
        f"Each budget's runs, and the {law['settings']['interpolation']} through the points around "
        "the lowest loss. Diamonds mark "
        f"the minima ({bracketed} of {len(named)} budgets have a bracketed minimum)."
    )
    return Figure("isoflop", "Iso-FLOP parabolas", caption, finish(alt.layer(*layers)))


def budget_color(named: Rows) -> alt.Color:
    """One colour per budget, darker for more compute; a continuous scale for many budgets."""
    if len(named) > NAMED_BUDGETS:
        return log_color("Compute", np.array([m["flops"] for m in named]), "FLOPs", power_of_ten)
    order = [m["Budget"] for m in named]
    scale = alt.Scale(domain=order, scheme=alt.SchemeParams("viridis", extent=[0.92, 0.05]))
    return alt.Color("Budget:N", scale=scale, sort=order, legend=alt.Legend(title="Budget"))


def optimum(points: Points, law: Law, letter: str) -> Figure | None:
    """N*(C) or D*(C): the minima, their power law with its band, and the parametric law's curve."""
    part, symbol = law["isoflop"], {"a": "N", "b": "D"}[letter]
    column, title = {"a": ("params", PARAMS), "b": ("tokens", TOKENS)}[letter]
    minima = [m for m in part["minima"] if m[column]["value"]]
    if "reason" in part or not minima:
        return None
    dots = [
        {"C": m["flops"], "Value": m[column]["value"], "lo": m[column]["lo"], "hi": m[column]["hi"],
         "FLOPs": three_digits(m['flops']), "Optimum": interval_text(m[column], amount)}
        for m in minima
    ]  # fmt: skip
    flops = np.geomspace(min(points.flops.min(), minima[0]["flops"]), points.flops.max(), 40)
    value = np.exp(part[f"log_k_{letter}"] + part[letter]["value"] * np.log(flops))
    band = np.repeat(value[:, None], 2, axis=1)
    if part["cloud"][letter]:
        slope, level = np.array(part["cloud"][letter]).T
        drawn = np.exp(level[:, None] + slope[:, None] * np.log(flops))
        band = np.percentile(drawn, [5, 95], axis=0).T
    fitted, other = f"iso-FLOP minima, C^{part[letter]['value']:.3f}", None
    columns = zip(flops, value, band, strict=True)
    lines = [{"C": c, "Value": v, "lo": b[0], "hi": b[1], "Law": fitted} for c, v, b in columns]
    if law["optimum"]:
        other = f"parametric law, C^{law['parametric'][letter]['value']:.3f}"
        n = optimal_params(split_coordinates(law), flops)
        best = {"params": n, "tokens": flops / 6 / n}[column]
        lines += [{"C": c, "Value": v, "Law": other} for c, v in zip(flops, best, strict=True)]
    x = log_axis(flops, FLOPS, power_of_ten, pad=1.1)
    heights = [r[k] for r in [*lines, *dots] for k in ("Value", "lo", "hi") if r.get(k)]
    y = log_axis(np.array(heights), f"Optimal {title.lower()} {symbol}*", amount, pad=1.1)
    at = {"x": alt.X("C:Q", **x), "y": alt.Y("Value:Q", **y)}
    domain = [name for name in (fitted, other) if name]
    color = alt.Color(
        "Law:N",
        scale=alt.Scale(domain=domain, range=[BLUE, ORANGE][: len(domain)]),
        legend=alt.Legend(title=None, orient="top-left", labelLimit=260),
    )
    shade = alt.Chart(data([r for r in lines if "lo" in r])).mark_area(opacity=0.18, color=BLUE)
    bars = alt.Chart(data(dots)).mark_rule(color=INK, strokeWidth=1.5)
    tips = [alt.Tooltip("FLOPs:N"), alt.Tooltip("Optimum:N", title=f"{symbol}*")]
    chart = (
        shade.encode(x=at["x"], y=alt.Y("lo:Q", **y), y2="hi:Q")
        + alt.Chart(data(lines)).mark_line(strokeWidth=2).encode(**at, color=color)
        + bars.encode(x=at["x"], y=alt.Y("lo:Q", **y), y2="hi:Q")
        + alt.Chart(data(dots))
        .mark_circle(size=85, color=INK, opacity=1)
        .encode(**at, tooltip=tips)
    )
    caption = f"{symbol}* of every bracketed budget, with 90 % intervals, and its power law."
    name = {"a": "optimal_params", "b": "optimal_tokens"}[letter]
    return Figure(name, f"Optimal {title.lower()}", caption, finish(chart, 420, 320), half=True)


def frontier(points: Points, law: Law) -> Figure | None:
    """Loss against compute: every run, the frontier with its band, predictions and outcomes."""
    part = law["frontier"]
    dots = [run_row(points, row) for row in shown(points) if not points.holdout[row]]
    lines = [{"C": c, "Loss": v, "lo": lo, "hi": hi} for c, v, lo, hi in part["band"]]
    name = "frontier E + K C^-γ of the minima"
    if not lines and part["implied"]:
        e, k, gamma = (part["implied"][key]["value"] for key in ("E", "K", "gamma"))
        flops = np.geomspace(points.flops.min(), points.flops.max(), 60)
        lines = [{"C": c, "Loss": e + k * c**-gamma} for c in flops.tolist()]
        name = "frontier implied by the parametric law"
    if not lines:
        return None
    best = [
        {"C": m["flops"], "Loss": m["loss"]["value"], "FLOPs": three_digits(m['flops']),
         "Lowest loss": interval_text(m["loss"], nats)}
        for m in law["isoflop"]["minima"] if m["loss"]["value"]
    ]  # fmt: skip
    held, counted = held_out(law), baseline_rows(points)
    heights = [
        r[k]
        for r in [*dots, *lines, *held, *counted]
        for k in ("Loss", "lo", "hi", "Outcome")
        if r.get(k)
    ]
    every = [r["C"] for r in [*dots, *lines, *held, *counted] if r["C"]]
    x = log_axis(np.array(every), FLOPS, power_of_ten)
    y = loss_axis(np.array(heights))
    at = {"x": alt.X("C:Q", **x), "y": alt.Y("Loss:Q", **y)}
    # One colour scale for all layers, so that one legend explains all colours.
    keys = {"runs": GREY, "minima": VERMILION, name: BLUE} | (
        {PREDICTION: ORANGE, OUTCOME: GREEN} if held else {}
    )
    scale = alt.Scale(domain=list(keys), range=list(keys.values()))
    legend = alt.Legend(title=None, orient="top-right", labelLimit=320)

    def series(rows: Rows, label: str) -> alt.Chart:
        color = alt.Color("Series:N", scale=scale, sort=list(keys), legend=legend)
        return alt.Chart(data([row | {"Series": label} for row in rows])).encode(color=color)

    edges = {"x": at["x"], "y": alt.Y("lo:Q", **y), "y2": "hi:Q"}
    layers = []
    if lines[0].get("lo") is not None:
        layers.append(alt.Chart(data(lines)).mark_area(opacity=0.16, color=BLUE).encode(**edges))
    tips = [alt.Tooltip("FLOPs:N"), alt.Tooltip("Lowest loss:N")]
    layers += [
        series(lines, name).mark_line(strokeWidth=2).encode(**at),
        series(dots, "runs").mark_circle(size=40, opacity=0.55).encode(**at, tooltip=TOOLTIP),
        series(best, "minima")
        .mark_point(shape="diamond", size=130, filled=True, opacity=1)
        .encode(**at, tooltip=tips),
    ]
    layers += held_layers(held, at, edges, y, series) if held else []
    layers += baseline_layers(counted, "C", at)
    caption = (
        "The lowest loss at each compute, extrapolated, with its 90 % interval. "
        "Predictions use only the fitted runs."
    )
    title = "The frontier and the prediction"
    return Figure("frontier", title, caption, finish(alt.layer(*layers)))


def held_out(law: Law) -> Rows:
    """One row per registered prediction; without registered predictions, one per held-out run."""
    part = law["holdout"]
    entries = part["registered"] or part["runs"]
    rows = []
    for entry in entries[:MOST_POINTS]:
        target, loss = entry.get("target", entry), entry.get("loss") or entry["predicted"]
        rows.append(
            {
                "Run": label(target["run"]),
                "C": target["flops"],
                "Loss": loss["value"],
                "lo": loss["lo"],
                "hi": loss["hi"],
                "Outcome": entry["outcome"],
                "Predicted": interval_text(loss, nats),
                "Error": "—" if entry["outcome"] is None else f"{entry['error']:+.2%}",
            }
        )
    return rows


def held_layers(
    held: Rows, at: Law, edges: Law, y: Law, series: Callable[[Rows, str], alt.Chart]
) -> list[Any]:
    """Predictions as vertical bars with a mark at the value, outcomes as crosses."""
    tips = [alt.Tooltip(f"{name}:N") for name in ("Run", "Predicted", "Error")]
    tips.append(alt.Tooltip("Outcome:Q", format=".4f"))
    done = [row for row in held if row["Outcome"] is not None]
    place = {"x": at["x"], "y": alt.Y("Outcome:Q", **y)}
    return [
        series(held, PREDICTION).mark_rule(strokeWidth=2.5).encode(**edges),
        series(held, PREDICTION)
        .mark_point(shape="stroke", size=220, strokeWidth=2.5, opacity=1)
        .encode(**at, tooltip=tips),
        series(done, OUTCOME)
        .mark_point(shape="cross", size=55, filled=True, opacity=1)
        .encode(**place, tooltip=tips),
    ]


def prediction(points: Points, law: Law) -> Figure | None:
    """The held-out loss close up: each law's prediction with its interval, and the outcome."""
    part = law["holdout"]
    entry = (part["registered"] or part["runs"] or [None])[-1]
    if entry is None or len(part["registered"] or part["runs"]) > CLOSE_UPS:
        return None
    loss = entry.get("loss") or entry["predicted"]
    predictions = [("parametric law", loss), ("frontier", entry.get("frontier") or {"value": None})]
    rows = [
        {"Law": name, "Loss": v["value"], "lo": v["lo"], "hi": v["hi"],
         "Predicted": interval_text(v, nats)}
        for name, v in predictions if v["value"] is not None
    ]  # fmt: skip
    outcome = (
        [] if entry["outcome"] is None else [{"Loss": entry["outcome"], "Law": rows[0]["Law"]}]
    )
    values = [r[k] for r in [*rows, *outcome] for k in ("Loss", "lo", "hi") if r.get(k)]
    title = response_title(law)
    x = alt.X("Loss:Q", **loss_axis(np.array(values), title))
    y = alt.Y(
        "Law:N", title=None, sort=[name for name, _ in predictions], scale=alt.Scale(padding=0.6)
    )
    tips = [alt.Tooltip("Law:N"), alt.Tooltip("Predicted:N")]
    base = alt.Chart(data(rows))
    layers = [
        base.mark_rule(strokeWidth=4, color=ORANGE).encode(
            x=alt.X("lo:Q", **loss_axis(np.array(values), title)), x2="hi:Q", y=y),
        base.mark_circle(size=120, color=ORANGE, opacity=1).encode(x=x, y=y, tooltip=tips),
    ]  # fmt: skip
    if outcome:
        tip = alt.Tooltip("Loss:Q", format=".4f", title="Outcome")
        rule = alt.Chart(data(outcome)).mark_rule(strokeWidth=2.5, color=GREEN, strokeDash=[6, 3])
        layers.append(rule.encode(x=x, tooltip=tip))
    target = entry.get("target", entry)
    status = "the green line is the outcome" if outcome else "the run has not finished"
    caption = f"{label(target['run'])}: predictions with 90 % intervals; {status}."
    chart = finish(alt.layer(*layers), height=130)
    return Figure("prediction", "The prediction close up", caption, chart)


def figures(points: Points, law: Law) -> list[Figure]:
    """All figures that the data support, in the order of the page."""
    drawn = [
        prediction(points, law),
        frontier(points, law),
        isoflop(points, law),
        optimum(points, law, "a"),
        optimum(points, law, "b"),
        plane(points, law),
        curves(points, law),
        by_input([(law["points"]["source"], points, law)]),
        residuals(points, law),
        *clouds(law),
        exponents(law),
    ]
    return [figure for figure in drawn if figure is not None]
