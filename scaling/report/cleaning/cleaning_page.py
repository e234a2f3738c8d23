"""The HTML page of a cleaned corpus: what each rule removed, histograms, duplicates. It works
offline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.drafts import write
from scaling.printable import printable
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import byte_size, escape
from scaling.report.page import card, draw, figure_block, remove_page, table_row

LONGEST = 300  # characters of an example
METHOD = (
    "Rules are applied in the order of the table, so a document counts under the first rule that "
    "removes it. The shares are of the documents and bytes that were read. Examples are the "
    "documents of a rule whose places have the smallest checksums; of personal data the form alone "
    "is kept. Groups of duplicates are joined over all pairs, and the first document in the order "
    "of the input is kept. Repeated spans of sentences are looked for in the documents that are "
    "left, and their first occurrence is kept, with two exceptions: of a span that overlaps its "
    "own copy, such as equal sentences in a row, only the first sentences are kept, and a span "
    "that occurred first in a document that goes because too little of it is left is lost."
)


def write_page(
    folder: Path, about: Mapping[str, Any], rules: Mapping[str, Any], made: Mapping[str, Any]
) -> Path:
    """Writes the figures, then index.html; returns its path, or that of cleaning.json if the
    plotting packages are not installed. `about` is what `isoflop clean` writes there; `rules` has
    the stage, meaning and paper of each rule by its name."""
    if missing_package():
        remove_page(folder)
        return folder / "cleaning.json"
    from scaling.report.cleaning.cleaning_figures import figures

    drawn = figures(about, rules)
    return write(folder / "index.html", page(about, rules, made, drawn, draw(folder, drawn)))


def page(
    about: Mapping[str, Any],
    rules: Mapping[str, Any],
    made: Mapping[str, Any],
    drawn: list[Any],
    specs: dict[str, dict],
) -> str:
    """The whole page as text."""
    names = ", ".join(about["config"]["input"]["corpora"])
    body = "\n".join(
        [
            "<h1>A cleaned corpus</h1>",
            f'<p class="quiet">{escape(names)}</p>',
            f'<section class="cards">{cards(about)}</section>',
            f'<div class="figures">{"".join(figure_block(figure) for figure in drawn)}</div>',
            table(about, rules),
            examples(about, rules),
            groups(about),
            faults(about),
            f'<section class="panel"><h2>Methods</h2><p>{escape(METHOD)}</p>'
            f"<pre>{escape(made.get('command', ''))}\n{escape(versions(about, made))}</pre>",
            "</section>",
        ]
    )
    return frame("A cleaned corpus", body, specs)


def cards(about: Mapping[str, Any]) -> str:
    """Bytes and documents that are left, duplicates, damaged input."""
    read, left = about["read"], about["written"]
    duplicates = sum(removed(about, rule) for rule in ("exact_duplicate", "near_duplicate"))
    broken = about["faults"]
    return "\n".join(
        [
            card("text left", share(left["bytes"], read["bytes"]),
                 f"{byte_size(left['bytes'])} of {byte_size(read['bytes'])}"),
            card("documents left", share(left["documents"], read["documents"]),
                 f"{left['documents']:,} of {read['documents']:,}"),
            card("duplicates", f"{duplicates:,}", "documents equal or similar to an earlier one"),
            card("damaged input", f"{broken['files']:,}", f"files, and {broken['rows']:,} rows"),
        ]
    )  # fmt: skip


def table(about: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    """A row for each rule that removed or changed something."""
    read, rows = about["read"], []
    for name, rule in rules.items():
        if name not in about["rules"]:
            continue
        counts = about["rules"][name]
        cells = [
            escape(rule.stage), f"<code>{escape(name)}</code>", escape(meaning(about, rule)),
            f"{counts['documents']:,}", share(counts["documents"], read["documents"]),
            f"{counts['changed']:,}", f"{counts['times']:,}",
            byte_size(counts["bytes"]), share(counts["bytes"], read["bytes"]), escape(rule.paper),
        ]  # fmt: skip
        rows.append(table_row(cells))
    names = ["stage", "rule", "what it removes or changes", "documents removed", "share",
             "documents changed", "changes", "text removed", "share", "source"]  # fmt: skip
    return section("Rules", names, rows)


def meaning(about: Mapping[str, Any], rule: Any) -> str:
    """What a rule does, with the value of its key."""
    value = about["config"].get(rule.stage, {}).get(rule.key, "") if rule.key else ""
    return f"{rule.what} {value}".strip()


def examples(about: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    """What each rule removed or changed, where, and the value that it measured."""
    rows = []
    for name in (name for name in rules if name in about["rules"]):
        for one in about["rules"][name]["examples"]:
            value = "" if one["value"] is None else str(one["value"])
            cells = [f"<code>{escape(name)}</code>", escape(brief(value)),
                     f"<code>{escape(brief(one['where']))}</code>"]  # fmt: skip
            text = f'<td class="prose">{escape(brief(one["text"]))}</td>'
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + f"{text}</tr>")
    return section("Examples", ["rule", "measured", "place", "text"], rows)


def groups(about: Mapping[str, Any]) -> str:
    """The largest groups of duplicates."""
    rows = [
        f"<tr><td>{one['size']:,}</td><td><code>{escape(brief(one['where']))}</code></td>"
        f'<td class="prose">{escape(brief(one["text"]))}</td></tr>'
        for one in about["largest_groups"]
    ]
    names = ["documents", "place of the kept one", "text"]
    return section("Largest groups of duplicates", names, rows) if rows else ""


def faults(about: Mapping[str, Any]) -> str:
    """Input that could not be read."""
    rows = [
        f"<tr><td><code>{escape(brief(one['where']))}</code></td><td>{escape(brief(one['why']))}</td></tr>"
        for one in about["faults"]["named"]
    ]
    return section("Damaged input", ["place", "why"], rows) if rows else ""


def versions(about: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The commit and the packages."""
    listed = [f"{name} {version}" for name, version in about["versions"].items()]
    return ", ".join(filter(None, (f"commit {made.get('commit')}", *listed)))


def removed(about: Mapping[str, Any], rule: str) -> int:
    """The documents that a rule removed."""
    return about["rules"].get(rule, {}).get("documents", 0)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "—"


def brief(text: str) -> str:
    """A text of one line, safe to show."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
