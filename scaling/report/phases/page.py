"""The HTML page of the phases of post-training. It works offline."""

import json
import shlex
from pathlib import Path
from typing import Any

from scaling.drafts import as_path, write
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import escape, label
from scaling.report.page import card, draw, figure_block, remove_page, reproduction, table_row

FILE = "phases.json"
SHOWN = 12  # prompts whose answers the page shows
LONGEST = 80  # characters of an answer
# Keys of a phase, with the heads of their columns.
RATES = {
    "tokens_per_second": "tokens/s",
    "rollout_tokens_per_second": "drawn/s",
    "update_tokens_per_second": "trained/s",
}


def write_page(folder: str | Path, about: dict[str, Any]) -> Path:
    """Writes phases.json, then the figures, then index.html; returns its path, or that of
    phases.json if the plotting packages are not installed."""
    folder = as_path(folder)
    numbers = write(folder / FILE, json.dumps(about, indent=1) + "\n")
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.phases.figures import figures

    drawn = figures(about)
    return write(folder / "index.html", page(about, drawn, draw(folder, drawn)))


def page(about: dict[str, Any], drawn: list[Any], specs: dict[str, dict]) -> str:
    """The whole page as text, in the style of the report."""
    title = " → ".join(label(phase["name"]) for phase in about["phases"])
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            '<p class="quiet">What each phase of post-training brought: '
            f"{escape(label(about['task']))}.</p>",
            f'<section class="cards">{cards(about)}</section>',
            f'<div class="figures">{"".join(figure_block(figure) for figure in drawn)}</div>',
            answers(about),
            table(about),
            talk(about),
            f'<section class="panel">{reproduction(about.get("made"))}</section>',
        ]
    )
    return frame(title, body, specs)


def cards(about: dict[str, Any]) -> str:
    """pass@1, or the smallest k, of every phase."""
    first = about["phases"][0]["pass_at_k"][0]["k"]
    blocks = []
    for phase in about["phases"]:
        one = phase["pass_at_k"][0]
        note = f"pass@{first}, 90% interval {one['lo']:.1%} to {one['hi']:.1%}"
        blocks.append(card(label(phase["name"]), f"{one['value']:.1%}", note))
    return "\n".join(blocks)


def answers(about: dict[str, Any]) -> str:
    """The first answer of every run to the same prompts, side by side."""
    phases, rows = about["phases"], []
    for place, asked in enumerate(phases[0]["answers"][:SHOWN]):
        cells = [f"<code>{escape(brief(asked['prompt']))}</code>",
                 f"<code>{escape(brief(asked['answer']))}</code>"]  # fmt: skip
        for phase in phases:
            given = phase["answers"][place]
            mark = "✓" if given["right"] else "✗"
            cells.append(f"{mark} <code>{escape(brief(given['response']))}</code>")
        rows.append(table_row(cells))
    names = ("prompt", "a right answer", *(label(phase["name"]) for phase in phases))
    return section("One answer of each to the same prompts", names, rows)


def table(about: dict[str, Any]) -> str:
    """One row a run."""
    rows = []
    for phase in about["phases"]:
        cells = [
            escape(label(phase["name"])), escape(label(phase["objective"])),
            escape(label(phase["data"])), whole(phase["steps"]), whole(phase["seconds"]),
            *(whole(phase.get(key)) for key in RATES), escape(label(phase["status"])),
        ]  # fmt: skip
        for one in phase["pass_at_k"]:
            cells.append(f"{one['value']:.1%} <small>[{one['lo']:.1%}, {one['hi']:.1%}]</small>")
        rows.append(table_row(cells))
    ks = (f"pass@{one['k']}" for one in about["phases"][0]["pass_at_k"])
    names = ("phase", "objective", "data", "steps", "seconds", *RATES.values(), "status", *ks)
    return section("Runs", names, rows)


def talk(about: dict[str, Any]) -> str:
    """The command that talks with the last run."""
    run = escape(shlex.quote(about["phases"][-1]["run"]))
    return (
        '<section class="panel"><h2>Talk with it</h2>'
        f"<pre>isoflop chat --run={run}\nisoflop chat --run={run} --serve=8000</pre></section>"
    )


def whole(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, int | float) else "—"


def brief(text: str) -> str:
    """A text of one line, without the space around it."""
    line = " ".join(text.split()) or repr(text)
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
