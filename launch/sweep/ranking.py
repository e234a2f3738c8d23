"""Shows the ranking of a sweep on the terminal, and writes it as ranking.json and ranking.csv."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console
import rich.padding
import rich.table
import rich.text

from launch.amounts import amount, clock, with_interval
from launch.screen.fitted_table import Column, aligned, cell
from scaling.drafts import write
from scaling.printable import csv_cell, printable
from scaling.ranking.trials import short_names
from scaling.report.number_text import brief, label, nats, three_digits

WIDTH = 100  # characters of a line, if the terminal does not have more
MOST_ROWS = 20
MOST_INTERACTIONS, LEAST_SHARE = 3, 0.01  # interactions that are shown; share of the variance
MARKS = {True: "=", False: "", None: "?"}
MEANING = {True: "= best, or indistinguishable from it", None: "? not compared: one seed"}

Ranking = Mapping[str, Any]


def show(ranking: Ranking, most: int = MOST_ROWS, effects: bool = True) -> None:
    """Prints a ranking: at most `most` configurations (0: all), the verdict and, with `effects`,
    what each key does, fitted rates and warnings."""
    console = rich.console.Console(highlight=False)
    console.width = max(console.width, WIDTH)
    rows = ranking["configurations"][: most or None]
    parts: list[Any] = []
    if rows:
        (titles, *lines), _ = aligned(_columns(ranking, rows), console.width)
        parts += [rich.text.Text(titles, "bold", no_wrap=True), *lines]
        left = len(ranking["configurations"]) - len(rows)
        parts += [f"… and {left} more; isoflop rank --top=0 shows all"] if left else []
        marks = {row["among_best"] for row in rows}
        parts.append(", ".join(text for mark, text in MEANING.items() if mark in marks))
    parts.append(f"\n{ranking['best']['verdict']}")
    if effects:
        parts += _what_keys_do(ranking)
        parts += _notes(ranking)
    else:
        parts.append(f"isoflop rank {ranking['source']} shows what each key does")
    for part in parts:
        if isinstance(part, str):
            console.print(_safe(part), markup=False, soft_wrap=True)
        else:
            console.print(part, soft_wrap=isinstance(part, rich.text.Text))


def write_ranking(ranking: Ranking, out: Path) -> Path:
    """Writes ranking.json and ranking.csv, which has a row for each configuration, into a folder.
    Returns the path of the table."""
    write(out / "ranking.json", json.dumps(ranking, default=str) + "\n")
    return write(out / "ranking.csv", _csv(ranking))


def _safe(text: str) -> str:
    """Text with its line breaks, safe to show."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _columns(ranking: Ranking, rows: Sequence[Ranking]) -> list[Column]:
    """The columns of the table of configurations."""

    def column(title: str, name: str, text: Callable[[Any], str], spare: int = 0) -> Column:
        return Column(title, [_or_dash(row[name], text) for row in rows], spare)

    return [
        Column("", [f"{row['rank']}{MARKS[row['among_best']]:>2}" for row in rows]),
        *(
            Column(label(key["name"]), [cell(row["values"][key["key"]]) for row in rows])
            for key in ranking["keys"]
        ),
        column(label(ranking["metric"]), "mean", nats),
        column("± seeds", "spread", nats),
        Column("seeds", [str(len(row["seeds"])) for row in rows]),
        column("p", "p", _p, 1),
        column("eval error", "eval_se", nats, 2),
        column("params", "params", amount, 3),
        column("tokens", "tokens", amount, 4),
        column("time", "seconds", clock, 5),
    ]


def _what_keys_do(ranking: Ranking) -> list[Any]:
    """Marginal effects with importances, interactions and fitted rates."""
    names = {key["key"]: label(key["name"]) for key in ranking["keys"]}
    shown = [effect for effect in ranking["effects"] if effect["marginal"]]
    parts: list[Any] = []
    if shown:
        level = f"{ranking['level']:.0%}"
        parts.append(f"\nwhat each key does, the others held fixed ({level} intervals):")
        table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
        for title in ("key", "of variance", "p"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column(f"mean {label(ranking['metric'])}")
        for effect in shown:
            share, p = _share(effect["importance"]), _or_dash(effect["p"], _p)
            cells = (names[effect["key"]], share, p, _means(effect))
            table.add_row(*map(rich.text.Text, cells))
        parts.append(rich.padding.Padding(table, (0, 0, 0, 2)))
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


def _or_dash(value: Any, text: Callable[[Any], str]) -> str:
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
