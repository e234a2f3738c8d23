"""The figures of a probe: paired differences, reliability, selective answering, known facts."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from scaling.report.axes import BLUE, GREY, INK, ORANGE, PALETTE, Figure, data, finish
from scaling.report.number_text import label

MOST_GROUPS = 40  # bars of a figure


def figures(about: Mapping[str, Any]) -> list[Figure]:
    """All figures that the numbers have data for."""
    found: list[Figure | None] = []
    if "pairs" in about:
        found.append(differences(about["pairs"]))
    if "facts" in about:
        facts = about["facts"]
        found += [reliability(facts), selective(facts), confidences(facts), by_times(facts)]
        found.append(changes(facts))
    return [figure for figure in found if figure]


def differences(about: Mapping[str, Any]) -> Figure:
    """The mean difference of each group of pairs."""
    groups = sorted(about["groups"], key=lambda one: -abs(one["mean"]))[:MOST_GROUPS]
    rows = [
        {"Group": label(one["group"]), "Difference": one["mean"], "Pairs": one["pairs"]}
        for one in sorted(groups, key=lambda one: -one["mean"])
    ]
    names = [row["Group"] for row in rows]
    chart = (
        alt.Chart(data(rows))
        .mark_bar(color=BLUE, opacity=0.85)
        .encode(
            x=alt.X("Difference:Q", title="Difference of log-probability (nats)"),
            y=alt.Y("Group:N", sort=names, title=None, axis=alt.Axis(labelLimit=170)),
            tooltip=["Group:N", alt.Tooltip("Difference:Q", format="+.3f"), "Pairs:Q"],
        )
    )
    left = f"; the {MOST_GROUPS} furthest from 0" if len(about["groups"]) > MOST_GROUPS else ""
    caption = (
        "Above 0, the model prefers the first text of a pair, or the continuation after it. Mean "
        f"of each group of pairs{left}."
    )
    height = max(120, 24 * len(rows))
    return Figure("pairs", "Paired texts", caption, finish(chart, height=height))


def reliability(about: Mapping[str, Any]) -> Figure:
    """Accuracy against confidence, in bins of equal mass."""
    rows = [
        {"Confidence": b["confidence"], "Accuracy": b["accuracy"], "Answers": b["count"]}
        | {"lo": b["lo"], "hi": b["hi"]}
        for b in about["bins"]
    ]
    share = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format="%", tickCount=5)}
    base = alt.Chart(data(rows)).encode(
        x=alt.X("Confidence:Q", title="Mean confidence of a bin", **share),
        tooltip=[
            alt.Tooltip("Confidence:Q", format=".1%"),
            alt.Tooltip("Accuracy:Q", format=".1%"),
            "Answers:Q",
        ],
    )
    ends = [{"Confidence": 0, "Accuracy": 0}, {"Confidence": 1, "Accuracy": 1}]
    perfect = alt.Chart(data(ends)).mark_line(color=GREY, strokeDash=[4, 4])
    y = alt.Y("Accuracy:Q", title="Right answers", **share)
    chart = alt.layer(
        perfect.encode(x="Confidence:Q", y="Accuracy:Q"),
        base.mark_rule(color=INK).encode(
            y=alt.Y("lo:Q", title="Right answers", **share), y2="hi:Q"
        ),
        base.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(y=y),
    )
    caption = (
        "Each point is a tenth of the answers, by confidence. On the dashed line confidence is "
        "what it says; below it the model is too sure. 90% Wilson intervals."
    )
    return Figure("reliability", "Reliability", caption, finish(chart, height=300), half=True)


def selective(about: Mapping[str, Any]) -> Figure:
    """Risk against coverage."""
    curve = about["curve"]
    rows = [
        {"Coverage": c, "Risk": r, "Confidence": "of this model"}
        for c, r in zip(curve["coverage"], curve["risk"], strict=True)
    ]
    wrong = curve["risk"][-1]
    best = [
        {"Coverage": c, "Risk": max(0.0, c - (1 - wrong)) / c, "Confidence": "best possible"}
        for c in curve["coverage"]
    ]
    none = [{"Coverage": c, "Risk": wrong, "Confidence": "that says nothing"} for c in (0, 1)]
    names = ["of this model", "best possible", "that says nothing"]
    scale = alt.Scale(domain=names, range=[BLUE, ORANGE, GREY])
    percent = alt.Axis(format="%", tickCount=5)
    chart = (
        alt.Chart(data(rows + best + none))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("Coverage:Q", title="Questions that are answered", axis=percent),
            y=alt.Y("Risk:Q", title="Wrong among them", axis=percent),
            color=alt.Color("Confidence:N", scale=scale, sort=names,
                            legend=alt.Legend(orient="bottom", title="Confidence")),
            tooltip=["Confidence:N", alt.Tooltip("Coverage:Q", format=".1%"),
                     alt.Tooltip("Risk:Q", format=".1%")],
        )
    )  # fmt: skip
    caption = (
        "If only the most confident answers are given, fewer of them are wrong. The area under the "
        "curve is AURC."
    )
    return Figure("selective", "Selective answering", caption, finish(chart, height=300), half=True)


def confidences(about: Mapping[str, Any]) -> Figure | None:
    """How sure the model is of known and of unknown facts; None if it is not said which are."""
    rows = []
    for known, name in ((True, "known"), (False, "unknown")):
        found = [row["confidence"] for row in about["rows"] if row["known"] is known]
        for low in range(0, 100, 10):
            inside = sum(low <= 100 * c < low + 10 or (low == 90 and c == 1) for c in found)
            if found:
                rows.append({"Facts": name, "Confidence": f"{low}–{low + 10}", "low": low,
                             "Share": inside / len(found), "Answers": inside})  # fmt: skip
    if len({row["Facts"] for row in rows}) < 2:
        return None
    scale = alt.Scale(domain=["known", "unknown"], range=[BLUE, ORANGE])
    chart = (
        alt.Chart(data(rows))
        .mark_bar(opacity=0.9)
        .encode(
            x=alt.X("Confidence:N", sort=alt.EncodingSortField("low"), title="Confidence (%)",
                    axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("Facts:N", sort=["known", "unknown"]),
            y=alt.Y("Share:Q", title="Share of the answers", axis=alt.Axis(format="%")),
            color=alt.Color("Facts:N", scale=scale, legend=alt.Legend(orient="bottom", title=None)),
            tooltip=["Facts:N", "Confidence:N", "Answers:Q", alt.Tooltip("Share:Q", format=".1%")],
        )
    )  # fmt: skip
    caption = "Answers to unknown facts are made up, however sure the model is."
    title = "Confidence in known and unknown facts"
    return Figure("confidence", title, caption, finish(chart, height=300), half=True)


def by_times(about: Mapping[str, Any]) -> Figure | None:
    """Accuracy and confidence by how often a fact was told; None if that is not known."""
    rows = [
        {"Told": group["name"].removeprefix("told ").removesuffix(" times"), "Measure": name}
        | {"Value": group[key]["value"], "lo": group[key]["lo"], "hi": group[key]["hi"]}
        | {"Facts": group["facts"]}
        for group in about["groups"]
        if group["by"] == "times"
        for key, name in (("accuracy", "right"), ("confidence", "confidence"))
    ]
    if not rows:
        return None
    order = list(dict.fromkeys(row["Told"] for row in rows))
    names = ["right", "confidence"]
    share = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format="%"), "title": None}
    base = alt.Chart(data(rows)).encode(
        x=alt.X("Told:N", sort=order, title="Times told in the training text",
                axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("Measure:N", sort=names),
        color=alt.Color("Measure:N", scale=alt.Scale(domain=names, range=list(PALETTE[:2])),
                        sort=names, legend=alt.Legend(orient="bottom", title=None)),
        tooltip=["Told:N", "Measure:N", alt.Tooltip("Value:Q", format=".1%"), "Facts:Q"],
    )  # fmt: skip
    chart = alt.layer(
        base.mark_bar(opacity=0.85).encode(y=alt.Y("Value:Q", **share)),
        base.mark_rule().encode(y=alt.Y("lo:Q", **share), y2="hi:Q", color=alt.value(INK)),
    )
    caption = "By how often the text states a fact; 90% intervals over facts."
    return Figure("times", "Facts by how often they were told", caption,
                  finish(chart, height=300), half=True)  # fmt: skip


def changes(about: Mapping[str, Any]) -> Figure | None:
    """Nats of the right answers before and now; None without a run before."""
    rows = [
        {"Facts": label(one["group"]), "Run": name, "Nats": one["nats"][key]}
        for one in about.get("change", [])
        for key, name in (("before", "before"), ("now", "now"))
    ]
    if not rows:
        return None
    groups: Sequence[str] = list(dict.fromkeys(row["Facts"] for row in rows))
    names = ["before", "now"]
    chart = (
        alt.Chart(data(rows))
        .mark_bar(opacity=0.85)
        .encode(
            y=alt.Y("Facts:N", sort=groups, title=None, axis=alt.Axis(labelLimit=240)),
            yOffset=alt.YOffset("Run:N", sort=names),
            x=alt.X("Nats:Q", title="Nats of the right answer"),
            color=alt.Color("Run:N", scale=alt.Scale(domain=names, range=[GREY, BLUE]), sort=names,
                            legend=alt.Legend(orient="bottom", title=None)),
            tooltip=["Facts:N", "Run:N", alt.Tooltip("Nats:Q", format=".3f")],
        )
    )  # fmt: skip
    caption = "-log p of the right answers: the higher, the more is forgotten."
    height = 44 * len(groups)
    return Figure("change", "What changed", caption, finish(chart, height=height))
