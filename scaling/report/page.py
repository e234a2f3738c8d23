"""The report of a fit: an HTML page that works offline, law.json, points.csv and the figures."""

import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePath
from string import Template
from typing import Any

import numpy as np

from scaling.csv_file import to_csv
from scaling.drafts import as_path, read_object, write
from scaling.flattened import flatten
from scaling.intervals import FAR
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import (
    amount,
    escape,
    exponent,
    interval_html,
    label,
    nats,
    setting,
    three_digits,
)
from scaling.report.wording import (
    citation,
    constants,
    conventions,
    methods,
    optimum,
    sensitivity,
    warnings,
)
from scaling.table import Points

PART = Path(__file__).with_name("law.html")
MOST_ROWS = 500
COLUMNS = (
    *("run", "N (parameters)", "D (tokens)", "C (FLOPs)", "loss (nats per token)", "± (nats)"),
    *("bits per byte", "D/N", "epochs", "learning rate", "time (s)"),
)
PNG_SCALE = 2
OURS = ("*.png", "*.svg")  # figures of earlier reports, which are removed


def write_report(folder: str | Path, points: Points, law: dict[str, Any]) -> Path:
    """Writes law.json, points.csv, the figures as PNG and SVG, then index.html; returns its path.

    If the plotting packages are not installed, writes only law.json and points.csv, removes the
    page and figures of an earlier report, and returns the path of law.json.
    """
    folder = as_path(folder)
    numbers = write(folder / "law.json", json.dumps(law, indent=1) + "\n")
    write(folder / "points.csv", to_csv(points))
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.figures import figures

    drawn = figures(points, law)
    return write(folder / "index.html", page(points, law, drawn, draw(folder, drawn)))


def note_missing_drawing() -> None:
    """Prints a line to stderr if the page and figures cannot be written."""
    if name := missing_package():
        print(
            f"no figures and no page of the law: {name} is not installed; pip install -e "
            "'.[report]' adds it. All numbers are still printed and written",
            file=sys.stderr,
        )


def remove_page(folder: Path) -> None:
    """Removes the page and figures of an earlier report, which would contradict the new numbers."""
    (folder / "index.html").unlink(missing_ok=True)
    remove_figures(folder, keep=())


def remove_figures(folder: Path, keep: Collection[str]) -> None:
    """Removes the figures of an earlier page, except those named in `keep`."""
    for pattern in OURS:
        for old in (folder / "figures").glob(pattern):
            if old.stem not in keep:
                old.unlink()


def draw(folder: Path, drawn: Sequence[Any]) -> dict[str, dict]:
    """Writes every figure as PNG and SVG; returns their Vega-Lite specifications by name."""
    import vl_convert

    specs = {figure.name: figure.chart.to_dict() for figure in drawn}
    for name, spec in specs.items():
        write(folder / "figures" / f"{name}.png", vl_convert.vegalite_to_png(spec, scale=PNG_SCALE))
        write(folder / "figures" / f"{name}.svg", vl_convert.vegalite_to_svg(spec))
    remove_figures(folder, keep=specs)
    return specs


def page(points: Points, law: dict, drawn: list, specs: dict[str, dict]) -> str:
    """The whole page as text."""
    title = f"Scaling law of {PurePath(law['points']['source']).name}"
    head = f'<h1>{escape(title)}</h1>\n<p class="quiet">{subtitle(law)}</p>\n'
    return frame(title, head + law_part(points, law, drawn), specs)


def law_part(points: Points, law: dict[str, Any], drawn: Sequence[Any]) -> str:
    """What a page says about the law: numbers, figures, doubts, methods."""
    return Template(PART.read_text(encoding="utf-8")).substitute(
        cards=cards(law),
        warnings=warnings(law),
        constants=constants(law),
        optimum=optimum(law),
        figures="\n".join(figure_block(figure) for figure in drawn),
        sensitivity=sensitivity(law),
        conventions=conventions(law),
        trials=trials(points),
        settings=settings(points, law),
        methods=methods(law),
        citation=citation(law),
    )


def subtitle(law: dict[str, Any]) -> str:
    """The numbers of points and runs."""
    points = law["points"]
    held = f", {points['held_out']} held out" if points["held_out"] else ""
    return escape(f"{points['n']} points of {points['runs']} runs fitted{held}.")


def table_row(cells: Sequence[str]) -> str:
    """A row of a table. Cells are already HTML."""
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def reproduction(made: Mapping[str, Any] | None, more: Sequence[tuple[str, str]] = ()) -> str:
    """The command and the commit of a page's numbers, and `more` facts, under a title."""
    found = made or {}
    lines = [("command", found.get("command")), ("commit", found.get("commit")), *more]
    text = "\n".join(escape(f"{name:<8}  {value}") for name, value in lines if value)
    return f"<h2>How to make these numbers</h2><pre>{text}</pre>"


def card(label: str, value: str, note: str = "", kind: str = "") -> str:
    return (
        f'<div class="card {kind}"><div class="label">{escape(label)}</div>'
        f'<div class="value">{value}</div><div class="note">{note}</div></div>'
    )


def cards(law: dict[str, Any]) -> str:
    """The cards at the top: prediction, outcome and error of a held-out run, and the exponents."""
    shown, part = [], law["holdout"]
    entry = (part["registered"] or part["runs"] or [None])[-1]
    if (entry and part["n"] <= 1) or part["registered"]:
        shown += prediction_cards(entry, law["parametric"].get("response", "loss"))
    elif part["mean_error"] is not None:
        note = f"{part['n']} held-out runs, at most {part['max_error']:.2%}"
        shown.append(card("Mean held-out error", f"{part['mean_error']:.2%}", note))
    parametric, isoflop = law["parametric"], law["isoflop"]
    floor = parametric.get("floor")
    if floor:
        response = parametric["response"]
        note = "nats per token" if response == "loss" else ""
        value = interval_html(parametric[floor], exponent)
        shown.append(card(f"Irreducible {response} {floor}", value, note))
    split = parametric["a"] if law["optimum"] else {"value": None}
    a = isoflop["a"] if "reason" not in isoflop else split
    how = "iso-FLOP minima" if "reason" not in isoflop else "parametric law"
    if a["value"] is not None:
        shown.append(card("N* ∝ C^a", interval_html(a, exponent), how))
    return "\n".join(shown)


def prediction_cards(entry: dict[str, Any], response: str) -> list[str]:
    """Cards for a prediction, its outcome and its error."""
    loss, target = entry.get("loss") or entry["predicted"], entry.get("target", entry)
    registered = "made" in entry
    made = (
        f"written {escape(entry['made'][:16].replace('T', ' '))} UTC"
        if registered
        else "fitted without this run"
    )
    size = ", ".join(
        f"{amount(target[name])} {word}"
        for name, word in (("params", "parameters"), ("tokens", "tokens"))
        if target[name] is not None
    )
    if (entry.get("extrapolation") or 0) > FAR:
        made += (
            f"; extrapolated {three_digits(entry['extrapolation'])}-fold in compute, so the "
            "interval is too narrow"
        )
    about = "; ".join(part for part in (size, made) if part)
    unit = " (nats per token)" if response == "loss" else ""
    title, name = f"Predicted {response}{unit}", label(target["run"] or "a run")
    shown = [card(title, interval_html(loss, nats), f"{escape(name)}: {about}")]
    if entry["outcome"] is None:
        return [*shown, card("Outcome", "—", "the run has not finished")]
    verdict = {True: "inside the interval", False: "outside the interval", None: ""}[
        entry["inside"]
    ]
    kind = {True: "good", False: "bad", None: ""}[entry["inside"]]
    return [
        *shown,
        card("Outcome", nats(entry["outcome"]), "nats per token" if response == "loss" else ""),
        card("Error", f"{entry['error']:+.2%}", verdict, kind),
    ]


def figure_block(figure: Any) -> str:
    links = " · ".join(
        f'<a href="figures/{figure.name}.{kind}">{kind.upper()}</a>' for kind in ("svg", "png")
    )
    half = " half" if figure.half else ""
    return (
        f'<figure class="panel{half}"><h2>{escape(figure.title)}</h2>'
        f'<div class="chart" id="{figure.name}"></div>'
        f"<figcaption>{escape(figure.caption)} <small>{links}</small></figcaption></figure>"
    )


def trials(points: Points) -> str:
    """The table of runs and baselines."""
    names = [*COLUMNS, *(escape(name) for name in points.other), ""]
    rows = []
    for i in np.argsort(points.flops, kind="stable")[:MOST_ROWS]:
        facts = points.facts[i] if points.facts else {}
        n, d = float(points.params[i]), float(points.tokens[i])
        cells = [
            escape(label(points.run[i])),
            *(number_cell(v, text) for v, text in ((n, amount), (d, amount))),
            number_cell(points.flops[i], three_digits),
            number_cell(points.loss[i], nats),
            number_cell(points.loss_se[i], nats),
            number_cell(facts.get("bits_per_byte"), nats),
            number_cell(d / n),
            *(number_cell(facts.get(k)) for k in ("epochs_of_data", "learning_rate", "seconds")),
            *(number_cell(values[i]) for values in points.other.values()),
            "held out" if points.holdout[i] else "",
        ]
        rows.append(table_row(cells))
    for b in points.baselines:
        counts = ((b.params, amount), (b.tokens, amount), (b.flops, three_digits))
        cells = [escape(label(b.id)), *(number_cell(v or None, text) for v, text in counts)]
        cells += [number_cell(b.loss, nats), number_cell(b.loss_se, nats)]
        cells += [""] * (len(names) - len(cells) - 1) + [escape(f"baseline, {label(b.family)}")]
        rows.append(table_row(cells))
    head = "".join(f"<th>{name}</th>" for name in names)
    more = (
        ""
        if len(points) <= MOST_ROWS
        else f"<p>The first {MOST_ROWS} of {len(points)}; all are in points.csv.</p>"
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def number_cell(value: float | None, text: Callable[[float], str] = three_digits) -> str:
    """A number as a table cell; empty if it is unknown."""
    return text(value) if value is not None and np.isfinite(value) else ""


def settings(points: Points, law: dict[str, Any]) -> str:
    """The settings of the analysis, those that vary between runs, and those that all runs share."""
    configs = read_configs(points)
    parts = [definition("Analysis", law["settings"])]
    if configs:
        keys = sorted({key for config in configs for key in config})
        values = {key: {json.dumps(config.get(key)) for config in configs} for key in keys}
        same = {key: json.loads(next(iter(v))) for key, v in values.items() if len(v) == 1}
        varied = {key: f"{len(v)} values" for key, v in values.items() if len(v) > 1}
        parts += [
            definition("Varied between the runs", varied),
            definition("Shared by all runs", same),
        ]
    return "\n".join(parts)


def read_configs(points: Points) -> list[dict[str, Any]]:
    """The config.json of every run, with dotted keys ({'model.d_model': 64}); empty for points from
    a CSV file. Prints a line to stderr for each file that cannot be read.
    """
    if (root := points.folder) is None:
        return []
    folders = {
        path.parent.name: path
        for path in (*root.glob("*/config.json"), *root.glob("*/*/config.json"))
    }
    configs = []
    for path in (folders[str(run)] for run in points.run if str(run) in folders):
        try:
            configs.append(flatten(read_object(path)))
        except (ValueError, OSError) as error:
            print(f"the report leaves out the settings of a run: {error}", file=sys.stderr)
    return configs


def definition(title: str, entries: dict[str, Any]) -> str:
    rows = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(setting(v))}</dd></div>" for k, v in entries.items()
    )
    opened = " open" if len(entries) < 20 else ""
    return (
        f"<details{opened}><summary>{title} ({len(entries)})</summary><dl>{rows}</dl></details>"
        if rows
        else ""
    )
