"""The figure of the page of tokenizers: bytes a token by text."""

from typing import Any

import altair as alt

from scaling.report.axes import PALETTE, Figure, data, finish
from scaling.report.number_text import label

ROW = 26  # height of a text, in pixels


def figures(about: dict[str, Any]) -> list[Figure]:
    """All figures."""
    return [lengths(about)]


def lengths(about: dict[str, Any]) -> Figure:
    """Bytes a token of every text that came back, a mark for each tokenizer."""
    names = [label(one["name"]) for one in about["tokenizers"]]
    texts = [label(name) for name in about["texts"]]
    rows = [
        {"Text": label(text), "Tokenizer": label(one["name"]),
         "Bytes a token": counts["bytes_per_token"]}
        for one in about["tokenizers"]
        for text, counts in one["texts"].items()
        if not counts["round_trip"]
    ]  # fmt: skip
    colors = [PALETTE[number % len(PALETTE)] for number in range(len(names))]
    chart = (
        alt.Chart(data(rows))
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X("Bytes a token:Q", scale=alt.Scale(zero=True)),
            y=alt.Y("Text:N", sort=texts, title=None, axis=alt.Axis(grid=True)),
            color=alt.Color("Tokenizer:N", scale=alt.Scale(domain=names, range=colors), sort=names,
                            legend=alt.Legend(title=None, orient="top", columns=3, labelLimit=200)),
            shape=alt.Shape("Tokenizer:N", sort=names, scale=alt.Scale(domain=names)),
            tooltip=["Text:N", "Tokenizer:N", alt.Tooltip("Bytes a token:Q", format=".2f")],
        )
    )  # fmt: skip
    caption = (
        "More bytes a token make a text shorter for a model. Scripts beyond Latin have two to four "
        "bytes a character, so compare tokenizers in a row, not rows. Texts that do not come back "
        "are left out."
    )
    drawn = finish(chart, height=ROW * len(texts) + 20)
    return Figure("lengths", "Bytes a token", caption, drawn)
