"""Shows the ranking of a sweep on the terminal, and writes it as ranking.json and ranking.csv."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.padding
import rich.table
import rich.text
from rich.cells import cell_len

from launch.amounts import amount, clock, with_interval
from scaling.drafts import write
from scaling.printable import csv_cell, printable
from scaling.ranking.trials import short_names
from scaling.ranking.verdict import brief
from scaling.report.number_text import label, nats, three_digits

WIDTH = 100  # characters of a line, if the terminal does not have more
MOST_ROWS = 20
MOST_INTERACTIONS, LEAST_SHARE = 3, 0.01  # interactions that are shown; share of the variance
MARKS = {True: "=", False: "", None: "?"}
MEANING = {True: "= best or not to be told from it", None: "? not compared: one seed"}
SPARE = ("time", "tokens", "params", "eval error", "p")  # columns that a narrow terminal lacks

Ranking = Mapping[str, Any]


def show(ranking: Ranking, most: int | None = MOST_ROWS) -> None:
    """Prints a ranking: at most `most` configurations (None: all), the verdict, what each key does,
    fitted rates and warnings."""
    console = rich.console.Console(highlight=False)
    console.width = max(console.width, WIDTH)
    rows = ranking["configurations"][:most]
    parts: list[Any] = []
    if rows:
        columns = _fitting(_columns(ranking, rows), console.width)
        console.width = max(console.width, _width(columns))
        parts.append(_grid(columns))
        left = len(ranking["configurations"]) - len(rows)
        parts += [f"… and {left} more; --all shows them"] if left else []
        marks = {row["among_best"] for row in rows}
        parts.append(", ".join(text for mark, text in MEANING.items() if mark in marks))
    parts.append(f"\n{ranking['best']['verdict']}")
    parts += _what_keys_do(ranking)
    parts += _notes(ranking)
    for part in parts:
        if isinstance(part, str):
            console.print(_safe(part), markup=False, soft_wrap=True)
        else:
            console.print(part)


def write_ranking(ranking: Ranking, out: Path) -> Path:
    """Writes ranking.json and ranking.csv, which has a row for each configuration, into a folder.
    Returns the path of the table."""
    write(out / "ranking.json", json.dumps(ranking, default=str) + "\n")
    return write(out / "ranking.csv", _csv(ranking))


def _safe(text: str) -> str:
    """Text with its line breaks, safe to show."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _columns(ranking: Ranking, rows: Sequence[Ranking]) -> dict[str, list[str]]:
    """The columns of the table of configurations: title and cells."""
    columns = {" ": [f"{row['rank']}{MARKS[row['among_best']]:>2}" for row in rows]}
    for key in ranking["keys"]:
        columns[label(key["name"])] = [label(brief(row["values"][key["key"]])) for row in rows]
    columns[label(ranking["metric"])] = [nats(row["mean"]) for row in rows]
    columns["± seeds"] = [_or_dash(row["spread"], nats) for row in rows]
    columns["seeds"] = [str(len(row["seeds"])) for row in rows]
    columns["p"] = [_or_dash(row["p"], _p) for row in rows]
    columns["eval error"] = [_or_dash(row["eval_se"], nats) for row in rows]
    for title, text in (("params", amount), ("tokens", amount)):
        columns[title] = [_or_dash(row[title], text) for row in rows]
    columns["time"] = [_or_dash(row["seconds"], clock) for row in rows]
    return columns


def _fitting(columns: dict[str, list[str]], width: int) -> dict[str, list[str]]:
    """The columns that fit in a line, without as many of SPARE as must go."""
    for spare in (None, *SPARE):
        columns = {title: cells for title, cells in columns.items() if title != spare}
        if _width(columns) <= width:
            break
    return columns


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    widths = [max(map(cell_len, (title, *cells))) for title, cells in columns.items()]
    return sum(widths) + 2 * len(columns)


def _grid(columns: Mapping[str, Sequence[str]], last: str = "right") -> rich.table.Table:
    """A table of these columns, aligned right; the last one as `last` says."""
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    for title in columns:
        side = last if title == list(columns)[-1] else "right"
        table.add_column(rich.text.Text(title), justify=side, no_wrap=side == "right")
    for cells in zip(*columns.values(), strict=True):
        table.add_row(*map(rich.text.Text, cells))
    return table


def _what_keys_do(ranking: Ranking) -> list[Any]:
    """Marginal effects with importances, interactions and fitted rates."""
    names = {key["key"]: label(key["name"]) for key in ranking["keys"]}
    shown = [effect for effect in ranking["effects"] if effect["marginal"]]
    parts: list[Any] = []
    if shown:
        level = f"{ranking['level']:.0%}"
        parts.append(f"\nwhat each key does, the others held fixed ({level} intervals):")
        by_key = {
            "key": [names[effect["key"]] for effect in shown],
            "of variance": [_share(effect["importance"]) for effect in shown],
            "p": [_or_dash(effect["p"], _p) for effect in shown],
            f"mean {label(ranking['metric'])}": [_means(effect) for effect in shown],
        }
        parts.append(rich.padding.Padding(_grid(by_key, "left"), (0, 0, 0, 2)))
    pairs = [pair for pair in ranking["interactions"] if pair["importance"]["value"] > LEAST_SHARE]
    for pair in pairs[:MOST_INTERACTIONS]:
        together = " with ".join(names[key] for key in pair["keys"])
        parts.append(f"  {together}, beyond each alone: {_share(pair['importance'])}")
    for optimum in ranking["optima"]:
        parts.append(f"  {_optimum(optimum, names)}")
    return parts


def _means(effect: Ranking) -> str:
    """'0.01: 1.7204 ± 0.0110 · 0.02: …', with the note."""
    texts = []
    for row in effect["marginal"]:
        reach = "" if row["lo"] is None else f" ± {nats((row['hi'] - row['lo']) / 2)}"
        texts.append(f"{label(brief(row['value']))}: {nats(row['mean'])}{reach}")
    note = f" ({effect['note']})" if effect["note"] else ""
    return " · ".join(texts) + note


def _optimum(optimum: Ranking, names: Mapping[str, str]) -> str:
    """'best learning_rate at d_model 64: 0.021 [0.018, 0.024], loss 1.6290'."""
    at = ", ".join(f"{names[key]} {brief(value)}" for key, value in optimum["at"].items())
    start = f"best {names[optimum['key']]}" + (f" at {at}" if at else "")
    if optimum["value"] is None:
        return f"{start}: {optimum['reason']}"
    ends = [_or_dash(optimum[end], three_digits) for end in ("lo", "hi")]
    text = f"{start}: {three_digits(optimum['value'])} [{', '.join(ends)}]"
    reason = f"; {optimum['reason']}" if optimum["reason"] else ""
    return f"{text} ({optimum['level']:.0%}), mean there {nats(optimum['loss'])}{reason}"


def _notes(ranking: Ranking) -> list[str]:
    """Counts of trials that are not ranked, confounded keys and warnings."""
    reasons: dict[str, int] = {}
    for entry in ranking["not_ranked"]:
        reasons[entry["reason"]] = reasons.get(entry["reason"], 0) + 1
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
    lines = [f"not ranked: {counts}"] if counts else []
    lines += [f"confounded: {entry['text']}" for entry in ranking["confounding"]]
    return lines + [f"note: {text}" for text in ranking["warnings"]]


def _share(importance: Ranking | None) -> str:
    return "—" if importance is None else with_interval(importance, "{:.0%}".format)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _or_dash(value: Any, text: Any) -> str:
    return "—" if value is None else text(value)


def _csv(ranking: Ranking) -> str:
    """A row for each configuration, its varied keys in columns of their short names."""
    names = short_names([key["key"] for key in ranking["keys"]])
    fields = ("mean", "spread", "se", "eval_se", "params", "tokens", "flops", "seconds", "p")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["rank", *names.values(), *fields, "among_best", "seeds", "metric_values", "trials"]
    )
    for row in ranking["configurations"]:
        values = [row["values"][key] for key in names]
        joined = [" ".join(map(str, row[name])) for name in ("seeds", "metric_values", "trials")]
        cells = [row["rank"], *values, *(row[f] for f in fields), row["among_best"], *joined]
        table.writerow(map(csv_cell, cells))
    return text.getvalue()
