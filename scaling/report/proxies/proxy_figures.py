"""The figures of over-optimisation: gold and proxy reward against √KL with the fitted laws, and the
laws' constants against the proxy's size and data."""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from scaling.estimators.proxies import FACTS, curve
from scaling.laws.law import symbols
from scaling.laws.over_optimisation import BEST_OF_N, RL
from scaling.report.axes import Figure, Rows, data, finish, log_axis, loss_axis
from scaling.report.comparison_figures import PALETTE
from scaling.report.number_text import amount, label

FINENESS = 80
D = "√KL from the initial policy (√nats)"
# log n - (n - 1)/n is the KL of best-of-n if no two samples have the same reward.
D_BEST = "√KL of best-of-n (√nats; at most, where answers repeat)"
GOLD, PROXY = "Gold reward gained", "Proxy reward gained (standard deviations)"
IN_WORDS = {"size": "Parameters of the proxy", "comparisons": "Comparisons that the proxy learned"}
LAWS = {law.name: law for law in (BEST_OF_N, RL)}


def figures(study: dict[str, Any]) -> list[Figure]:
    """All figures that the study supports; `study` is what `isoflop overoptimisation` writes."""
    names = [part["name"] for part in (*study["samples"], *study["policies"])]
    shown = dict.fromkeys(map(label, names))
    found = []
    for key, law, title, axis in (
        ("samples", BEST_OF_N, "Best-of-n", D_BEST),
        ("policies", RL, "Reinforcement learning", D),
    ):
        if study[key]:
            found.append(gold(study[key], law, title, axis, list(shown)))
    if study["samples"]:
        found.append(proxy(study["samples"], list(shown)))
    return found + [
        constants(study["samples"], fact)
        for fact in FACTS
        if len({part[fact] for part in study["samples"] if part[fact]}) > 1
    ]


def gold(
    parts: Sequence[dict[str, Any]], law: Any, title: str, axis: str, names: Sequence[str]
) -> Figure:
    """Gold reward against √KL, which `axis` names: what was measured, and the law of this way to
    optimise."""
    dots: Rows = [point(part, row) for part in parts for row in part["curve"]]
    lines: Rows = []
    for part in parts:
        kl = np.array([row["kl"] for row in part["curve"] if row["kl"] > 0])
        span = np.linspace(np.sqrt(kl.min()), np.sqrt(kl.max()), FINENESS)
        values = curve(law, part["laws"][law.name], span**2)
        name = label(part["name"])
        lines += [
            {"Proxy": name, "d": float(d), "Gold": float(v)}
            for d, v in zip(span, values, strict=True)
        ]
    x = alt.X("d:Q", title=axis, scale=alt.Scale(zero=True))
    y = alt.Y("Gold:Q", **loss_axis(np.array([row["Gold"] for row in (*dots, *lines)]), GOLD))
    color = colour(names)
    drawn = alt.Chart(data(lines)).mark_line(strokeWidth=2).encode(x=x, y=y, color=color)
    marks = alt.Chart(data(dots)).mark_point(size=40, filled=True, opacity=0.8)
    tips = [alt.Tooltip("Proxy:N"), alt.Tooltip("KL:Q", format=".3f")]
    tips += [alt.Tooltip("Gold:Q", format=".4f")]
    tips += [alt.Tooltip("n:Q")] if "n" in dots[0] else []
    caption = f"Points: measured. Lines: {symbols(law.formula)}, fitted to each proxy."
    chart = finish(drawn + marks.encode(x=x, y=y, color=color, tooltip=tips))
    return Figure(f"gold_{law.name}", f"{title}: gold reward", caption, chart)


def proxy(parts: Sequence[dict[str, Any]], names: Sequence[str]) -> Figure:
    """The proxy's own reward, which rises where the gold reward falls."""
    rows = [point(part, row) for part in parts for row in part["curve"]]
    chart = alt.Chart(data(rows)).mark_line(strokeWidth=2, point=True)
    values = np.array([row["Own"] for row in rows])
    chart = chart.encode(
        x=alt.X("d:Q", title=D_BEST, scale=alt.Scale(zero=True)),
        y=alt.Y("Own:Q", **loss_axis(values, PROXY)),
        color=colour(names),
        tooltip=[alt.Tooltip("Proxy:N"), alt.Tooltip("n:Q"), alt.Tooltip("Own:Q", format=".3f")],
    )
    caption = "The reward that is optimised. It rises however far the gold reward falls."
    return Figure("proxy_best_of_n", "Best-of-n: proxy reward", caption, finish(chart, height=280))


def constants(parts: Sequence[dict[str, Any]], fact: str) -> Figure:
    """α and β of best-of-n with their intervals, against the size or the data of the proxy."""
    rows: Rows = []
    for part in parts:
        for name in BEST_OF_N.names if part[fact] else ():
            v = part["laws"][BEST_OF_N.name][name]
            rows.append(
                {
                    "Proxy": label(part["name"]),
                    "X": float(part[fact]),
                    "Constant": symbols(name),
                    "Value": v["value"],
                    "Low": v["value"] if v["lo"] is None else v["lo"],
                    "High": v["value"] if v["hi"] is None else v["hi"],
                }
            )
    x = alt.X("X:Q", **log_axis(np.array([row["X"] for row in rows]), IN_WORDS[fact], amount))
    color = alt.Color(
        "Constant:N", scale=alt.Scale(range=list(PALETTE[:2])), legend=alt.Legend(title=None)
    )
    base = alt.Chart(data(rows))
    bars = base.mark_rule(strokeWidth=2).encode(
        x=x, y=alt.Y("Low:Q", title="Constant of the law"), y2="High:Q", color=color
    )
    tips = [alt.Tooltip(f"{name}:N") for name in ("Proxy", "Constant")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3g") for name in ("Value", "Low", "High")]
    marks = base.mark_point(size=70, filled=True, opacity=1)
    marks = marks.encode(x=x, y="Value:Q", color=color, tooltip=tips)
    caption = f"{symbols(BEST_OF_N.formula)}: the constants with 90 % intervals over prompts."
    title = f"Constants against {IN_WORDS[fact].lower()}"
    return Figure(f"constants_{fact}", title, caption, finish(bars + marks, height=280))


def point(part: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """A point of a curve as a row of a chart's data."""
    about = {"Proxy": label(part["name"]), "KL": row["kl"], "d": row["kl"] ** 0.5}
    about |= {"Gold": row["gold"]}
    return about | ({"n": row["n"], "Own": row["proxy"]} if "n" in row else {})


def colour(names: Sequence[str]) -> alt.Color:
    """One colour per proxy, the same in all figures."""
    palette = [PALETTE[i % len(PALETTE)] for i in range(len(names))]
    scale = alt.Scale(domain=list(names), range=palette)
    legend = alt.Legend(title=None, labelLimit=320) if len(names) > 1 else None
    return alt.Color("Proxy:N", scale=scale, sort=list(names), legend=legend)
