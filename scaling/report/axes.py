"""Elements that all figures share: palette, axes with round labels, tooltips, style."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from scaling.report.number_text import amount, label, three_digits
from scaling.table import Points

# Okabe & Ito's palette, readable with every common colour blindness.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8F98"
PURPLE, SKY, INK = "#CC79A7", "#56B4E9", "#1d2330"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, INK)
WIDTH, HEIGHT = 720, 400
MOST_POINTS = 2000
Rows = list[dict[str, Any]]
FLOPS, PARAMS, TOKENS = "Training compute (FLOPs)", "Parameters", "Tokens"
LOSS = "Loss (nats per token)"
LOSS_TICKS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20)


@dataclass(frozen=True)
class Figure:
    """A chart with its title and caption."""

    name: str
    title: str
    caption: str
    chart: alt.TopLevelMixin
    half: bool = False  # half width, two in a row


def response_title(law: dict[str, Any]) -> str:
    """The axis title of the fitted law's response."""
    response = law["parametric"].get("response", "loss")
    return LOSS if response == "loss" else response.replace("_", " ").capitalize()


def log_axis(values: np.ndarray, title: str, text: Callable[[float], str], pad: float = 1.25):
    """Keyword arguments of a logarithmic axis with labelled ticks at round numbers."""
    low, high = float(np.min(values)) / pad, float(np.max(values)) * pad
    decades = np.log10(high / low)
    leads = (1,) if decades > 4.5 else (1, 3) if decades > 1.6 else (1, 2, 5)
    exponents = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [m * 10.0**k for k in exponents for m in leads if low <= m * 10.0**k <= high]
    labels = " : ".join(f"datum.value == {tick!r} ? '{text(tick)}'" for tick in ticks)
    axis = alt.Axis(values=ticks, labelExpr=f"{labels} : ''" if ticks else "datum.label")
    return {
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
        "axis": axis,
        "title": title,
    }


def log_loss_axis(values: np.ndarray) -> dict[str, Any]:
    """A logarithmic loss axis: power laws are straight, and late losses are not compressed."""
    low, high = float(np.min(values)) / 1.03, float(np.max(values)) * 1.03
    ticks = [tick for tick in LOSS_TICKS if low <= tick <= high]
    axis = alt.Axis(values=ticks, format="~g") if len(ticks) > 2 else alt.Axis(tickCount=6)
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return {"scale": scale, "axis": axis, "title": LOSS}


def loss_axis(values: np.ndarray, title: str = LOSS) -> dict[str, Any]:
    """A linear loss axis that ends just outside the values."""
    low, high = float(np.min(values)), float(np.max(values))
    pad = 0.06 * (high - low) or 0.05
    return {
        "scale": alt.Scale(domain=[low - pad, high + pad], nice=False, zero=False),
        "axis": alt.Axis(tickCount=7),
        "title": title,
    }


def run_row(points: Points, row: int) -> dict[str, Any]:
    """A run as a row of a chart's data, with the fields of its tooltip."""
    n, d, c = (float(v[row]) for v in (points.params, points.tokens, points.flops))
    counts = {"N": n, "D": d, "C": c, "Loss": float(points.loss[row])}
    return {
        "Run": label(points.run[row]),
        **{name: value if np.isfinite(value) else None for name, value in counts.items()},
        "Parameters": amount(n),
        "Tokens": amount(d),
        "FLOPs": three_digits(c),
        "Kind": "held out" if points.holdout[row] else "fitted",
    }


COUNTS = (("Parameters", "N", amount), ("Tokens", "D", amount), ("FLOPs", "C", three_digits))
TOOLTIP = [
    alt.Tooltip("Run:N"),
    alt.Tooltip("Parameters:N"),
    alt.Tooltip("Tokens:N"),
    alt.Tooltip("FLOPs:N"),
    alt.Tooltip("Loss:Q", format=".4f", title="Loss (nats)"),
    alt.Tooltip("Kind:N"),
]


def baseline_rows(points: Points) -> Rows:
    """The baselines as rows of a chart's data. Counts that are unknown or 0 are null."""
    rows = []
    for b in points.baselines:
        counts = {"N": b.params, "D": b.tokens, "C": b.flops}
        known = {k: float(v) if np.isfinite(v) and v > 0 else None for k, v in counts.items()}
        texts = {name: text(known[k]) if known[k] else "unknown" for name, k, text in COUNTS}
        names = {"Run": label(b.id), "Kind": label(b.family)}
        rows.append(names | {"Loss": float(b.loss)} | known | texts)
    return rows


def baseline_layers(rows: Rows, x: str, at: dict[str, Any]) -> list[alt.Chart]:
    """Labelled squares for baselines whose x (N, D or C) is known, labelled horizontal rules for
    the others. `at` has the x and y channels of the plot.
    """
    layers = []
    if known := [row for row in rows if row[x] is not None]:
        base = alt.Chart(data(known)).encode(x=at["x"], y=at["y"], tooltip=TOOLTIP)
        layers.append(base.mark_point(shape="square", size=90, filled=True, color=INK, opacity=1))
        layers.append(base.mark_text(align="left", dx=9, color=INK, limit=160).encode(text="Run:N"))
    if unknown := [row for row in rows if row[x] is None]:
        base = alt.Chart(data(unknown)).encode(y=at["y"], tooltip=TOOLTIP)
        layers.append(base.mark_rule(color=INK, strokeDash=[2, 3]))
        layers.append(
            base.mark_text(align="left", x=4, dy=-6, color=INK, limit=300).encode(text="Run:N")
        )
    return layers


def shown(points: Points) -> range:
    """The rows that figures show: all of them, or every k-th of a very long table."""
    return range(0, len(points), max(1, -(-len(points) // MOST_POINTS)))


def data(rows: Rows) -> alt.Data:
    return alt.Data(values=rows)


def log_color(column: str, values: np.ndarray, title: str, text: Callable[[float], str]):
    """Colour by a column on a logarithmic scale, light to dark; the legend has round numbers."""
    low, high = float(np.min(values)), float(np.max(values))
    leads = (1, 3) if high / low > 30 else (1, 2, 5)
    ticks = [m * 10.0**k for k in range(1, 30) for m in leads if low <= m * 10.0**k <= high]
    ticks = ticks or [low]
    labels = " : ".join(f"datum.value == {tick!r} ? '{text(tick)}'" for tick in ticks)
    legend = alt.Legend(
        type="gradient", title=title, gradientLength=160, values=ticks, labelExpr=f"{labels} : ''"
    )
    scheme = alt.SchemeParams("viridis", extent=[0.95, 0.0])
    scale = alt.Scale(type="log", scheme=scheme, domain=[low, high])
    return alt.Color(f"{column}:Q", scale=scale, legend=legend)


def finish(chart: Any, width: int = WIDTH, height: int = HEIGHT) -> Any:
    """Applies the style that all figures share."""
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 13}
    return (
        chart.properties(width=width, height=height)
        .configure(font="Helvetica, Arial, sans-serif", background="white")
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="#e6e8ec", domainColor="#9aa0aa", tickColor="#9aa0aa", titleFontWeight=500,
            titlePadding=10, labelOverlap="greedy", labelSeparation=5, **text,
        )
        .configure_legend(titleFontWeight=500, symbolStrokeWidth=2, symbolOpacity=1, **text)
    )  # fmt: skip
