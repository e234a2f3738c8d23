"""The HTML page that compares tokenizers. It works offline."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.drafts import as_path, write
from scaling.printable import printable
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import escape, label
from scaling.report.page import card, draw, figure_block, reproduction, table_row

FILE = "tokenizers.json"
SHOWN = 4  # texts of a tokenizer that do not come back
STYLE = """<style>
.card .label { overflow-wrap: anywhere; }
.pieces { display: flex; flex-wrap: wrap; gap: 3px; font-family: ui-monospace, monospace; }
.pieces span { background: var(--tint); border-radius: 4px; padding: 1px 5px; white-space: pre; }
.pieces span:nth-child(2n) { background: none; border: 1px solid var(--line); }
.split { display: grid; grid-template-columns: minmax(90px, 180px) 1fr; gap: 8px 14px; }
.split b { font-weight: 500; overflow-wrap: anywhere; }
@media (max-width: 560px) {
  .split { grid-template-columns: 1fr; gap: 2px 0; }
  .split b { margin-top: 8px; }
}
</style>"""


def write_page(folder: str | Path, about: dict[str, Any]) -> Path:
    """Writes tokenizers.json, then the figures if the plotting packages are installed, then
    index.html; returns its path."""
    folder = as_path(folder)
    write(folder / FILE, json.dumps(about, indent=1) + "\n")
    drawn: list[Any] = []
    if not missing_package():
        from scaling.report.tokenizers.tokenizer_figures import figures

        drawn = figures(about)
    specs = draw(folder, drawn) if drawn else {}
    return write(folder / "index.html", page(about, drawn, specs))


def page(about: dict[str, Any], drawn: list[Any], specs: dict[str, dict]) -> str:
    """The whole page as text, in the style of the report."""
    texts = [(f"text {name}", one["from"]) for name, one in about["texts"].items()]
    names = ", ".join(label(one["name"]) for one in about["tokenizers"])
    body = "\n".join(
        [
            STYLE,
            "<h1>Tokenizers compared</h1>",
            f'<p class="quiet">{escape(names)}</p>',
            f'<section class="cards">{cards(about)}</section>',
            summary(about),
            f'<div class="figures">{"".join(figure_block(figure) for figure in drawn)}</div>',
            by_text(about),
            *(split(about, number) for number in range(len(about["sentences"]))),
            trips(about),
            f'<section class="panel">{reproduction(about.get("made"), texts)}</section>',
        ]
    )
    return frame("Tokenizers compared", body, specs)


def cards(about: dict[str, Any]) -> str:
    """What each tokenizer makes of all texts together."""
    return "\n".join(
        card(
            label(one["name"]),
            f"{one['bytes_per_token']:.2f}",
            f"bytes a token, {one['vocab_size']:,} tokens in the vocabulary",
        )
        for one in about["tokenizers"]
    )


def summary(about: dict[str, Any]) -> str:
    """One row a tokenizer."""
    count = len(about["texts"])
    rows = []
    for one in about["tokenizers"]:
        cells = (
            escape(label(one["name"])), f"{one['vocab_size']:,}", f"{one['bytes_per_token']:.3f}",
            number(one["fertility"]), share(one["unknown"]), f"{one['came_back']} of {count}",
            f"{one['megabytes_per_second']:.1f}", f"{one['seconds_until_ready']:.1f}",
        )  # fmt: skip
        rows.append(table_row(cells))
    names = ("tokenizer", "vocabulary", "bytes a token", "tokens a word", "unknown",
             "texts that come back", "MB/s", "seconds to train or load")  # fmt: skip
    return section("All texts together", names, rows)


def by_text(about: dict[str, Any]) -> str:
    """Bytes a token, tokens a word and, for parallel texts, the length against the reference."""
    rows = []
    for text in about["texts"]:
        cells = [escape(label(text))]
        for one in about["tokenizers"]:
            cells.append(cell(one["texts"][text]))
        rows.append(table_row(cells))
    names = ("text", *(label(one["name"]) for one in about["tokenizers"]))
    title = "Bytes a token <small>tokens a word"
    if about["parallel"]:
        title += f", × tokens for one of {about['parallel']}"
    return section(f"{title}; ✗ does not come back</small>", names, rows)


def cell(counts: Mapping[str, Any]) -> str:
    """The numbers of one tokenizer on one text."""
    notes = [f"{number(counts['fertility'])} a word"]
    if "premium" in counts:
        notes.append(f"× {counts['premium']:.2f}")
    mark = " ✗" if counts["round_trip"] else ""
    return f"{counts['bytes_per_token']:.2f}{mark} <small>{', '.join(notes)}</small>"


def split(about: dict[str, Any], place: int) -> str:
    """One sentence, cut into tokens by every tokenizer."""
    rows = []
    for one in about["tokenizers"]:
        found = one["sentences"][place]
        spans = "".join(f"<span>{escape(shown(piece))}</span>" for piece in found)
        name = f"{escape(label(one['name']))} <small>{len(found)} tokens</small>"
        rows.append(f'<b>{name}</b><div class="pieces">{spans}</div>')
    sentence = escape(about["sentences"][place])
    split = f'<div class="split">{"".join(rows)}</div>'
    return f'<section class="panel"><h2>{sentence}</h2>{split}</section>'


def shown(piece: str) -> str:
    """A token with a mark for each space, without characters that cannot be seen."""
    return printable(piece).replace(" ", "␣")


def trips(about: dict[str, Any]) -> str:
    """Where texts did not come back; "" if all did."""
    rows = []
    for one in about["tokenizers"]:
        name = escape(label(one["name"]))
        changed = {t: c["round_trip"] for t, c in one["texts"].items() if c["round_trip"]}
        for text, said in list(changed.items())[:SHOWN]:
            said = f"<code>{escape(said)}</code>"
            rows.append(f"<tr><td>{name}</td><td>{escape(label(text))}</td><td>{said}</td></tr>")
        if (more := len(changed) - SHOWN) > 0:
            rows.append(f"<tr><td>{name}</td><td>{more} more</td><td></td></tr>")
    if not rows:
        return ""
    return section("Texts that do not come back", ("tokenizer", "text", "first difference"), rows)


def number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}"


def share(value: float | None) -> str:
    return "—" if value is None else f"{value:.1%}"
