"""The figures of the page of post-training: pass@k by phase, and rewards and KL along training."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from scaling.report.axes import PALETTE, Figure, data, finish
from scaling.report.number_text import label

CURVES = (
    ("reward", "Reward", "Reward of the policy's responses along training, of each rollout."),
    ("kl", "KL from the reference (nats per response)",
     "How far the policy moved from the model that it started from."),
)  # fmt: skip


def figures(about: dict[str, Any]) -> list[Figure]:
    """All figures that the runs have data for."""
    return [passes(about), *filter(None, (curves(about, *one) for one in CURVES))]


def passes(about: dict[str, Any]) -> Figure:
    """pass@k of every phase, with its interval."""
    names = [label(phase["name"]) for phase in about["phases"]]
    ks = [f"pass@{one['k']}" for one in about["phases"][0]["pass_at_k"]]
    rows = [
        {"Phase": label(phase["name"]), "Measure": f"pass@{one['k']}"}
        | {key: one[key] for key in ("value", "lo", "hi")}
        for phase in about["phases"]
        for one in phase["pass_at_k"]
    ]
    share = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format="%"), "title": None}
    scale = alt.Scale(domain=ks, range=list(PALETTE[: len(ks)]))
    base = alt.Chart(data(rows)).encode(
        x=alt.X("Phase:N", sort=names, title=None, axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("Measure:N", sort=ks),
        color=alt.Color("Measure:N", scale=scale, sort=ks, legend=alt.Legend(title=None)),
        tooltip=["Phase:N", "Measure:N", alt.Tooltip("value:Q", format=".1%"),
                 alt.Tooltip("lo:Q", format=".1%"), alt.Tooltip("hi:Q", format=".1%")],
    )  # fmt: skip
    layers = [
        base.mark_bar(opacity=0.85).encode(y=alt.Y("value:Q", **share)),
        base.mark_rule(color="#1d2330").encode(
            y=alt.Y("lo:Q", **share), y2="hi:Q", color=alt.value("#1d2330")
        ),
    ]
    first = about["phases"][0]
    caption = (
        f"pass@k is the probability that one of k answers is right. {first['prompts']} prompts of "
        f"{about['task']}{held_out(about)}; 90% intervals over prompts."
    )
    return Figure(
        "passes", "Right answers by phase", caption, finish(alt.layer(*layers), height=340)
    )


def held_out(about: dict[str, Any]) -> str:
    """What is known of the prompts: whether the runs that trained on the task held them out."""
    if about["held_out"] is None:
        return ", a task that none of these runs was trained on"
    if about["held_out"]:
        return ", which the runs that were trained on this task held out"
    return ", which a run that held out none may have been trained on"


def curves(about: dict[str, Any], quantity: str, title: str, caption: str) -> Figure | None:
    """A quantity of training along the steps, one line a phase; None if no phase has it."""
    drawn = [phase for phase in about["phases"] if any(quantity in row for row in phase["curve"])]
    if not drawn:
        return None
    names: Sequence[str] = [label(phase["name"]) for phase in drawn]
    rows = [
        {"Phase": label(phase["name"]), "Step": row["step"], "Value": row[quantity]}
        for phase in drawn
        for row in phase["curve"]
        if quantity in row
    ]
    scale = alt.Scale(domain=list(names), range=list(PALETTE[: len(names)]))
    line = alt.Chart(data(rows)).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=22))
    chart = line.encode(
        x=alt.X("Step:Q", title="Update"),
        y=alt.Y("Value:Q", title=title),
        color=alt.Color("Phase:N", scale=scale, sort=list(names), legend=alt.Legend(title=None)),
        tooltip=["Phase:N", "Step:Q", alt.Tooltip("Value:Q", format=".3f")],
    )  # fmt: skip
    head = title.partition(" (")[0]
    return Figure(quantity, head, caption, finish(chart, height=300), half=True)
