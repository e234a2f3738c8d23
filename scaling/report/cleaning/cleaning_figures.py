"""The figures of a cleaned corpus: removals by rule, lengths, languages, groups of duplicates."""

from collections.abc import Mapping
from typing import Any

import altair as alt

from scaling.report.axes import BLUE, GREEN, GREY, PALETTE, Figure, Rows, data, finish

MOST_LANGUAGES = 20


def figures(about: Mapping[str, Any], rules: Mapping[str, Any]) -> list[Figure]:
    """The figures for which there are numbers."""
    drawn = (removals(about, rules), lengths(about), languages(about), group_sizes(about))
    return [figure for figure in drawn if figure is not None]


def removals(about: Mapping[str, Any], rules: Mapping[str, Any]) -> Figure | None:
    """Bytes that each rule removes, as a share of what was read."""
    rows: Rows = [
        {
            "Rule": name,
            "Stage": rule.stage,
            "Share": max(0, about["rules"][name]["bytes"]) / max(1, about["read"]["bytes"]),
            "Documents": about["rules"][name]["documents"],
        }
        for name, rule in rules.items()
        if about["rules"].get(name, {}).get("bytes", 0) > 0
    ]
    if not rows:
        return None
    stages = list(dict.fromkeys(row["Stage"] for row in rows))
    colours = [PALETTE[place % len(PALETTE)] for place in range(len(stages))]
    chart = (
        alt.Chart(data(rows))
        .mark_bar()
        .encode(
            x=alt.X("Share:Q", title="Share of the bytes read", axis=alt.Axis(format="~%")),
            y=alt.Y("Rule:N", title=None, sort=[row["Rule"] for row in rows]),
            color=alt.Color(
                "Stage:N", scale=alt.Scale(domain=stages, range=colours), sort=stages,
                legend=alt.Legend(title=None),
            ),
            tooltip=["Rule:N", "Stage:N", alt.Tooltip("Share:Q", format=".2%"), "Documents:Q"],
        )
    )  # fmt: skip
    caption = "Text that goes by each rule, in the order in which rules are applied."
    return Figure(
        "removed", "What each rule removed", caption, finish(chart, height=20 * len(rows) + 40)
    )


def lengths(about: Mapping[str, Any]) -> Figure | None:
    """Lengths of the documents before and after."""
    names = {"read": "read", "written": "left"}
    rows: Rows = [
        {"Step": int(step), "Characters": f"up to {2 ** int(step):,}", "Documents": n,
         "Text": names[side]}
        for side in names
        for step, n in about["lengths"][side].items()
    ]  # fmt: skip
    if not rows:
        return None
    order = [f"up to {2**step:,}" for step in sorted({row["Step"] for row in rows})]
    chart = (
        alt.Chart(data(rows))
        .mark_bar()
        .encode(
            x=alt.X("Characters:N", title="Characters of a document", sort=order),
            xOffset=alt.XOffset("Text:N", sort=["read", "left"]),
            y=alt.Y("Documents:Q"),
            color=alt.Color(
                "Text:N", scale=alt.Scale(domain=["read", "left"], range=[GREY, BLUE]),
                legend=alt.Legend(title=None),
            ),
            tooltip=["Text:N", "Characters:N", "Documents:Q"],
        )
    )  # fmt: skip
    caption = "Documents by length, before and after cleaning."
    return Figure("lengths", "Lengths", caption, finish(chart, height=280))


def languages(about: Mapping[str, Any]) -> Figure | None:
    """Detected languages of what was read."""
    found = sorted(about["languages"].items(), key=lambda one: (-one[1], one[0]))
    rows: Rows = [{"Language": code, "Documents": n} for code, n in found[:MOST_LANGUAGES]]
    if not rows:
        return None
    kept = set(about["config"]["language"]["keep"])
    for row in rows:
        row["Kept"] = "kept" if row["Language"] in kept else "removed"
    chart = (
        alt.Chart(data(rows))
        .mark_bar()
        .encode(
            x=alt.X("Documents:Q", scale=alt.Scale(type="symlog")),
            y=alt.Y("Language:N", sort=[row["Language"] for row in rows]),
            color=alt.Color(
                "Kept:N", scale=alt.Scale(domain=["kept", "removed"], range=[GREEN, GREY]),
                legend=alt.Legend(title=None),
            ),
            tooltip=["Language:N", "Documents:Q"],
        )
    )  # fmt: skip
    caption = (
        f"Languages of the documents read, the {MOST_LANGUAGES} commonest (symmetric log axis)."
    )
    return Figure("languages", "Languages", caption, finish(chart, height=20 * len(rows) + 40))


def group_sizes(about: Mapping[str, Any]) -> Figure | None:
    """How many groups of duplicates have how many documents."""
    rows: Rows = [{"Size": name, "Groups": n} for name, n in about["groups"].items()]
    if not rows:
        return None
    chart = (
        alt.Chart(data(rows))
        .mark_bar(color=BLUE)
        .encode(
            x=alt.X("Size:N", title="Documents of a group", sort=[row["Size"] for row in rows]),
            y=alt.Y("Groups:Q", scale=alt.Scale(type="symlog")),
            tooltip=["Size:N", "Groups:Q"],
        )
    )
    caption = (
        "Groups of exact and near duplicates; one document of each is kept (symmetric log axis)."
    )
    return Figure("groups", "Groups of duplicates", caption, finish(chart, height=280))
