"""The page of a probe: one HTML file that opens offline."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from scaling.drafts import as_path, write
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import (
    escape,
    interval_html,
    label,
    nats,
    p_text,
    percent,
    signed,
    signed_percent,
)
from scaling.report.page import card, draw, figure_block, remove_page, reproduction, table_row
from scaling.report.probing.wording import other_world, unlearned_unread

FILE = "probe.json"
MOST_ROWS = 400  # rows of a table of all pairs or questions


def write_page(folder: str | Path, about: Mapping[str, Any]) -> Path:
    """Writes probe.json, then the figures, then index.html; returns its path, or that of probe.json
    if the plotting packages are not installed."""
    folder = as_path(folder)
    numbers = write(folder / FILE, json.dumps(about, indent=1) + "\n")
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.probing.figures import figures

    drawn = figures(about)
    return write(folder / "index.html", page(about, drawn, draw(folder, drawn)))


def page(about: Mapping[str, Any], drawn: list[Any], specs: dict[str, dict]) -> str:
    """The whole page as text, in the style of the report."""
    name = label(PurePath(about["run"]).name)
    than = f", beside {label(PurePath(about['before']).name)}" if about["before"] else ""
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="quiet">What the model associates, knows and makes up{escape(than)}.</p>',
        f'<section class="cards">{cards(about)}</section>',
        f'<div class="figures">{"".join(figure_block(figure) for figure in drawn)}</div>',
    ]
    for key, part in (("pairs", pairs), ("weat", weat), ("facts", facts), ("text", other_text)):
        if key in about:
            body.append(part(about[key]))
    body.append(f'<section class="panel">{reproduction(about.get("made"))}</section>')
    return frame(f"Probe of {name}", "\n".join(body), specs)


def cards(about: Mapping[str, Any]) -> str:
    """The main numbers."""
    found = []
    if "pairs" in about:
        mean = about["pairs"]["mean"]
        note = f"nats, mean of {mean['units']} groups of pairs; {p_html(mean['p'])}"
        found.append(card("Paired difference", signed(mean["value"]), span(mean, signed) + note))
    for test in about.get("weat", {}).get("tests", [])[:3]:
        note = f"{escape(label(test['name']))}; {p_html(test['p'])}"
        found.append(card("WEAT effect size", effect_text(test), note))
    if "facts" in about:
        s = about["facts"]["summary"]
        known = "accuracy" if s["accuracy_known"]["value"] is None else "accuracy_known"
        title = "Right answers" if known == "accuracy" else "Right, of known facts"
        found.append(share(title, s[known], "of the likeliest answers"))
        if s["made_up"]["value"] is not None:
            found.append(share("Made up", s["made_up"],
                               "of unknown facts are answered with 50% or more"))  # fmt: skip
        note = f"perfect calibration: {nats(about['facts']['ece_by_chance'])} by chance"
        found.append(card("ECE", nats(s["ece"]["value"]), span(s["ece"], nats) + note))
        if s["auroc_known"]["value"] is not None:
            note = span(s["auroc_known"], nats) + "confidence tells known facts from unknown ones"
            found.append(card("AUROC", nats(s["auroc_known"]["value"]), note))
    if "text" in about:
        of = about["text"].get("change") or about["text"]["nats"]
        title = "Change of other text" if "change" in about["text"] else "Other text"
        text = "{:+.4f}".format if "change" in about["text"] else nats
        found.append(card(title, text(of["value"]), span(of, text) + "nats per token"))
    return "\n".join(found)


def share(title: str, of: Mapping[str, Any], note: str) -> str:
    """A card with a percentage."""
    return card(title, percent(of["value"]), span(of, percent) + note)


def span(of: Mapping[str, Any], text: Any) -> str:
    """'0.1 to 0.2, ', the interval at the beginning of a note; "" without one."""
    return "" if of["lo"] is None else f"{text(of['lo'])} to {text(of['hi'])}; "


def p_html(p: float) -> str:
    """A p-value as HTML."""
    return escape(p_text(p))


def folded(summary: str, table: str) -> str:
    """A table that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{table}</details>"


def pairs(about: Mapping[str, Any]) -> str:
    """The mean differences, of all pairs and of groups, and the pairs."""
    again = "change" in about
    rows = []
    of_all = [("mean", "<b>all</b>"), ("before", "all, before"), ("change", "change")]
    for key, name in of_all if again else of_all[:1]:
        found = about[key]
        rows.append(table_row([name, str(len(about["rows"])), interval_html(found, signed),
                               p_html(found["p"]), percent(found["positive"])]))  # fmt: skip
    for group in about["groups"]:
        rows.append(table_row([escape(label(group["group"])), str(group["pairs"]),
                               signed(group["mean"]), "", ""]))  # fmt: skip
    names = ("group", "pairs", "difference (nats)", "p of no difference", "above 0")
    listed = [
        table_row([escape(one["first"]), escape(one["second"]), escape(one["continuation"]),
                   escape(one["against"]), signed(one["difference"])]
                  + ([signed(one["before"])] if again else []))
        for one in about["rows"][:MOST_ROWS]
    ]  # fmt: skip
    heads = ("first", "second", "continuation", "against", "difference", *(["before"] * again))
    return section("Paired texts", names, rows) + folded(
        f"{len(listed)} of {len(about['rows'])} pairs", section("Pairs", heads, listed)
    )


def weat(about: Mapping[str, Any]) -> str:
    """The association tests, and the association of each word."""
    rows, listed = [], []
    before = about.get("before") or [None] * len(about["tests"])
    for test, then in zip(about["tests"], before, strict=True):
        effect = [effect_text(one) for one in ((test, then) if then else (test,))]
        how = "all" if test["exact"] else "drawn"
        rows.append(table_row([escape(label(test["name"])), *effect, p_html(test["p"]),
                               f"{test['divisions']:,} ({how})",
                               escape(", ".join(test["missing"])) or "none"]))  # fmt: skip
        targets = [(word, side) for side in "xy" for word in test["words"][side]]
        for (word, side), value in zip(targets, test["by_word"], strict=True):
            listed.append(table_row([escape(label(test["name"])), side.upper(), escape(word),
                                     signed(value)]))  # fmt: skip
    names = ("test", "effect size d", *(["d before"] if about.get("before") else []),
             "p (one-sided)", "divisions", "missing words")  # fmt: skip
    heads = ("test", "set", "word", "s: nearer to A than to B")
    return section("Association of word vectors (WEAT)", names, rows) + folded(
        "Each target word", section("Targets", heads, listed[:MOST_ROWS])
    )


def effect_text(test: Mapping[str, Any]) -> str:
    """The effect size with two decimals."""
    return "—" if test["effect_size"] is None else f"{test['effect_size']:+.2f}"


def facts(about: Mapping[str, Any]) -> str:
    """The groups of facts, what changed, and every question."""
    rows = [
        table_row([escape(label(str(group["name"]))), f"{group['facts']:,}",
                   *(interval_html(group[key], percent)
                     for key in ("accuracy", "confidence", "sure", "consistency")),
                   interval_html(group["nats"], nats)])
        for group in about["groups"]
    ]  # fmt: skip
    names = ("facts", "count", "right", "confidence", "50% sure or more", "same answer", "nats")
    s = about["summary"]
    calibration = f"ECE; p of perfect calibration: {p_html(about['ece_p'])}"
    more = [
        table_row(["Brier score", interval_html(s["brier"], nats)]),
        table_row(
            [f"AURC; best possible {nats(about['best_aurc'])}", interval_html(s["aurc"], nats)]
        ),
        table_row(
            ["Questions that can be answered with 5% wrong", interval_html(s["coverage"], percent)]
        ),
        table_row(["AUROC of right from wrong answers", interval_html(s["auroc_right"], nats)]),
        table_row(["AUROC of known from unknown facts", interval_html(s["auroc_known"], nats)]),
        table_row([calibration, interval_html(s["ece"], nats)]),
        table_row(
            ["Probability of all possible answers together", interval_html(s["mass"], percent)]
        ),
    ]
    parts = [
        section("Facts", names, rows),
        section("Calibration and selective answering", ("measure", "value"), more),
    ]
    if "change" in about:
        parts.append(change(about))
    if about["unlearned_unread"]:
        parts.insert(0, f'<p class="quiet">Warning: {escape(unlearned_unread(about))}.</p>')
    if about["left_out"]:
        note = f"{about['left_out']:,} more facts have words that the vocabulary lacks."
        parts.insert(0, f'<p class="quiet">{note}</p>')
    if about["of_another_world"]:
        parts.insert(0, f'<p class="quiet">Warning: {escape(other_world(about))}.</p>')
    return "".join(parts) + questions(about["rows"])


def change(about: Mapping[str, Any]) -> str:
    """What changed since the run before, by group."""
    rows = []
    for one in about["change"]:
        of, right = one["nats"], one["accuracy"]
        rows.append(table_row([escape(label(one["group"])), f"{one['facts']:,}", nats(of["before"]),
                               nats(of["now"]), interval_html(of["change"], signed),
                               p_html(of["change"]["p"]), percent(right["before"]),
                               percent(right["now"]),
                               interval_html(right["change"], signed_percent)]))  # fmt: skip
    names = ("facts", "count", "nats before", "nats now", "change", "p", "right before",
             "right now", "change")  # fmt: skip
    note = ""
    if any(row["unlearned"] for row in about["rows"]):
        note = (
            '<p class="quiet">As unlearned: asked in the words of data.forget. Forgotten facts in '
            "other ways: in all other words. Other facts in other ways: in words in which the "
            "training text never told them.</p>"
        )
    return section("What changed", names, rows) + note


def questions(listed: list[Mapping[str, Any]]) -> str:
    """A table of the questions."""
    rows = [
        table_row([f"<code>{escape(one['question'])}</code>",
                   f"<code>{escape(one['answer'])}</code>",
                   "✓" if one["right"] else f"✗ <code>{escape(one['right_answer'])}</code>",
                   percent(one["confidence"]), escape(label(one["group"])),
                   "—" if one["times"] is None else str(one["times"])])
        for one in listed[:MOST_ROWS]
    ]  # fmt: skip
    names = ("question", "answer", "right", "confidence", "facts", "times told")
    return folded(f"{len(rows)} of {len(listed):,} questions", section("Questions", names, rows))


def other_text(about: Mapping[str, Any]) -> str:
    """The loss on other text."""
    rows = [table_row(["nats per token", interval_html(about["nats"], nats)])]
    if "change" in about:
        rows.append(table_row(["before", interval_html(about["before"], nats)]))
        changed = interval_html(about["change"], "{:+.4f}".format)
        rows.append(table_row([f"change, {p_html(about['change']['p'])}", changed]))
    if about["unknown"]:
        of = about["unknown"] / about["tokens"]
        rows.append(table_row(["tokens that stand for unknown words", percent(of)]))
    title = f"Other text: {label(about['corpus'])}, {about['documents']:,} documents"
    return section(escape(title), ("", ""), rows)
