"""This file holds what all figures share: palette, axes with round labels, tooltips, looks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from scaling.table import Points

# Okabe & Ito's palette, readable with every common colour blindness.
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8F98"
INK = "#1d2330"
WIDTH, HEIGHT = 720, 400
MOST_POINTS = 2000
Rows = list[dict[str, Any]]
FLOPS, PARAMS, TOKENS = "Training compute (FLOPs)", "Parameters", "Tokens"
LOSS = "Loss (nats per token)"
LOSS_TICKS = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20)


@dataclass(frozen=True)
class Figure:
    """A chart, its title and the sentence under it."""

    name: str
    title: str
    caption: str
    chart: alt.TopLevelMixin
    half: bool = False  # two of them share a row


def power_of_ten(value: float) -> str:
    """'1e13', '3e13': as flags are written, and in every font."""
    lead, exponent = f"{value:.1e}".split("e")
    return f"{lead.removesuffix('.0')}e{int(exponent)}"


def amount(value: float) -> str:
    """'30k', '1.5M', '7B': counts of parameters and tokens."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def log_axis(values: np.ndarray, title: str, text: Callable[[float], str], pad: float = 1.25):
    """Keyword arguments of a logarithmic axis whose ticks are round numbers, all labelled."""
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
    """A logarithmic loss axis: power laws are straight, and early losses do not crowd out the
    late.
    """
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


def told(points: Points, row: int) -> dict[str, Any]:
    """What hovering over a run shows."""
    n, d, c = (float(v[row]) for v in (points.params, points.tokens, points.flops))
    return {
        "Run": str(points.run[row]),
        "N": n,
        "D": d,
        "C": c,
        "Loss": float(points.loss[row]),
        "Parameters": amount(n),
        "Tokens": amount(d),
        "FLOPs": f"{c:.3g}",
        "Kind": "held out" if points.holdout[row] else "fitted",
    }


TOOLTIP = [
    alt.Tooltip("Run:N"),
    alt.Tooltip("Parameters:N"),
    alt.Tooltip("Tokens:N"),
    alt.Tooltip("FLOPs:N"),
    alt.Tooltip("Loss:Q", format=".4f"),
    alt.Tooltip("Kind:N"),
]


def shown(points: Points) -> range:
    """The rows that figures show: all, or every k-th of a very long table."""
    return range(0, len(points), max(1, -(-len(points) // MOST_POINTS)))


def data(rows: Rows) -> alt.Data:
    return alt.Data(values=rows)


def log_color(column: str, values: np.ndarray, title: str, text: Callable[[float], str]):
    """A column's colour on a logarithmic scale, light to dark, with round numbers beside it."""
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
    """The looks that all figures share."""
    text = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "titleFontSize": 13}
    return (
        chart.properties(width=width, height=height)
        .configure(font="Helvetica, Arial, sans-serif", background="white")
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="#e6e8ec", domainColor="#9aa0aa", tickColor="#9aa0aa", titleFontWeight=500,
            titlePadding=10, labelOverlap="greedy", **text,
        )
        .configure_legend(titleFontWeight=500, symbolStrokeWidth=2, symbolOpacity=1, **text)
    )  # fmt: skip


def spoken(v: dict[str, Any], text: Callable[[float], str]) -> str:
    """'1.2M [1.1M, 1.4M]'."""
    if v["value"] is None:
        return "—"
    span = "" if v["lo"] is None else f" [{text(v['lo'])}, {text(v['hi'])}]"
    return text(v["value"]) + span
