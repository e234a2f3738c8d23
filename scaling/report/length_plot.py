"""The share of sentences that models translate exactly, by the length of the source, as a plot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling.drafts import write
from scaling.intervals import wilson
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import escape, label
from scaling.settings import LEVEL

SUFFIXES = (".html", ".svg", ".png")
MOST_BINS, LEAST = 12, 20  # bins; sentences of a bin
PNG_SCALE = 2
TITLE = "Exact match by the length of the source"
CAPTION = (
    "The share of held-out sentences whose translation is right in every word, by the words of the "
    f"source, with {LEVEL:.0%} Wilson intervals. Dots lie at the mean length of a bin."
)


def by_length(
    lengths_E: np.ndarray, exact_E: np.ndarray, least: int = LEAST
) -> list[dict[str, Any]]:
    """The bins of E sentences with their lengths in words: first, last, words (the mean),
    sentences, exact (how many), share, and its Wilson interval lo, hi. Equally wide bins, at most
    MOST_BINS of them; one with fewer than `least` sentences joins the bin before it."""
    width = max(1, -(-int(lengths_E.max()) // MOST_BINS))
    bins: list[list[int]] = []  # first and last words, sentences
    for bin_, sentences in enumerate(np.bincount((lengths_E - 1) // width).tolist()):
        if bins and min(sentences, bins[-1][2]) < least:
            bins[-1][1:] = (bin_ + 1) * width, bins[-1][2] + sentences
        else:
            bins.append([bin_ * width + 1, (bin_ + 1) * width, sentences])
    found = []
    for first, last, sentences in bins:
        here = (lengths_E >= first) & (lengths_E <= last)
        exact = int(exact_E[here].sum())
        low, high = wilson(exact / sentences, sentences)
        found.append({
            "first": first, "last": last, "words": float(lengths_E[here].mean()),
            "sentences": sentences, "exact": exact, "share": exact / sentences,
            "lo": low, "hi": high,
        })  # fmt: skip
    return found


def spec(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The Vega-Lite specification of a plot of the bins of `by_length`, by the name of the run."""
    import altair as alt

    from scaling.report.axes import PALETTE, data, finish

    rows = [
        {"Run": label(name), "Length": f"{one['first']}–{one['last']}"} | dict(one)
        for name, bins in found.items()
        for one in bins
    ]
    names = [label(name) for name in found]
    scale = alt.Scale(domain=names, range=list(PALETTE[: len(names)]))
    legend = alt.Legend(title=None, orient="top", columns=1, labelLimit=600)
    y = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format="%"), "title": "Exact match"}
    base = alt.Chart(data(rows)).encode(
        x=alt.X("words:Q", title="Words of the source", scale=alt.Scale(zero=True)),
        color=alt.Color("Run:N", scale=scale, sort=names, legend=legend),
        tooltip=[
            "Run:N", "Length:N", "sentences:Q", "exact:Q", alt.Tooltip("share:Q", format=".1%"),
            alt.Tooltip("lo:Q", format=".1%"), alt.Tooltip("hi:Q", format=".1%"),
        ],
    )  # fmt: skip
    line = base.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=40))
    layers = [base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("lo:Q", **y), y2="hi:Q"),
              line.encode(y=alt.Y("share:Q", **y))]  # fmt: skip
    return finish(alt.layer(*layers), height=340).to_dict()


def require(file: Path) -> None:
    """ValueError for a suffix that cannot be written, and without the packages that draw."""
    if file.suffix not in SUFFIXES:
        raise ValueError(f"by_length={file} must end with {', '.join(SUFFIXES)}")
    if name := missing_package():
        raise ValueError(
            f"by_length={file} needs the package {name}: pip install 'isoflop[report]'"
        )


def write_plot(file: Path, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Writes the plot as a page or a picture; raises what `require` raises."""
    require(file)
    drawn = spec(found)
    if file.suffix == ".html":
        body = (
            f'<h1>{TITLE}</h1>\n<figure class="panel"><div class="chart" id="lengths"></div>'
            f"<figcaption>{escape(CAPTION)}</figcaption></figure>"
        )
        return write(file, frame(TITLE, body, {"lengths": drawn}))
    import vl_convert

    if file.suffix == ".svg":
        return write(file, vl_convert.vegalite_to_svg(drawn))
    return write(file, vl_convert.vegalite_to_png(drawn, scale=PNG_SCALE))
