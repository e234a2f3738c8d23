"""The report of a fit: one HTML file that opens offline, beside the files that it was made of."""

import importlib.util
import json
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from scaling.csv_file import to_csv
from scaling.drafts import write
from scaling.intervals import FAR
from scaling.report.wording import (
    citation,
    constants,
    conventions,
    escape,
    interval_html,
    methods,
    optimum,
    sensitivity,
    warnings,
)
from scaling.table import Points

PAGE = Path(__file__).with_name("page.html")
MOST_ROWS = 500
PNG_SCALE = 2
# Figures written by an earlier report that this one does not have would mislead.
OURS = ("*.png", "*.svg")


def write_report(folder: str | Path, points: Points, law: dict[str, Any]) -> Path:
    """Writes law.json, points.csv, figures as PNG and SVG, and last index.html: its path."""
    require_drawing()
    import vl_convert

    from scaling.report.figures import figures

    folder = Path(folder)
    drawn = figures(points, law)
    specs = {figure.name: figure.chart.to_dict() for figure in drawn}
    for name, spec in specs.items():
        write(folder / "figures" / f"{name}.png", vl_convert.vegalite_to_png(spec, scale=PNG_SCALE))
        write(folder / "figures" / f"{name}.svg", vl_convert.vegalite_to_svg(spec))
    for pattern in OURS:
        for old in (folder / "figures").glob(pattern):
            if old.stem not in specs:
                old.unlink()
    write(folder / "law.json", json.dumps(law, indent=1) + "\n")
    write(folder / "points.csv", to_csv(points))
    text = page(points, law, drawn, specs, vl_convert.javascript_bundle())
    return write(folder / "index.html", text)


def require_drawing() -> None:
    """ValueError where the packages that draw are not installed: to know it before the work."""
    for name in ("altair", "vl_convert"):
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"the report takes {name}, which is not installed; run pip install -e '.[report]'"
            )


def page(points: Points, law: dict, drawn: list, specs: dict[str, dict], script: str) -> str:
    """The whole page as text."""
    figures = "\n".join(figure_block(figure) for figure in drawn)
    fluid = {name: fluid_spec(spec) for name, spec in specs.items()}
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Scaling law of {Path(law['points']['source']).name}"),
        subtitle=subtitle(law),
        cards=cards(law),
        warnings=warnings(law),
        constants=constants(law),
        optimum=optimum(law),
        figures=figures,
        sensitivity=sensitivity(law),
        conventions=conventions(law),
        trials=trials(points),
        settings=settings(points, law),
        methods=methods(law),
        citation=citation(law),
        # "</" would end the script element from inside a string.
        specs=json.dumps(fluid).replace("</", "<\\/"),
        library=script.replace("</script", "<\\/script"),
    )


def fluid_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """The chart as wide as its place on the page."""
    return spec | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


def subtitle(law: dict[str, Any]) -> str:
    """How many points, and whence."""
    points = law["points"]
    held = f", {points['held_out']} held out" if points["held_out"] else ""
    return escape(f"{points['n']} points of {points['runs']} runs fitted{held}.")


def card(label: str, value: str, note: str = "", kind: str = "") -> str:
    return (
        f'<div class="card {kind}"><div class="label">{escape(label)}</div>'
        f'<div class="value">{value}</div><div class="note">{note}</div></div>'
    )


def cards(law: dict[str, Any]) -> str:
    """The headline: prediction, outcome and error if there is a held-out run, and the exponents."""
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
        value = interval_html(parametric[floor], ".3f")
        shown.append(card(f"Irreducible {response} {floor}", value, note))
    split = parametric["a"] if law["optimum"] else {"value": None}
    a = isoflop["a"] if "reason" not in isoflop else split
    how = "iso-FLOP minima" if "reason" not in isoflop else "parametric law"
    if a["value"] is not None:
        shown.append(card("N* ∝ C^a", interval_html(a, ".3f"), how))
    return "\n".join(shown)


def prediction_cards(entry: dict[str, Any], response: str) -> list[str]:
    """Prediction, outcome, error."""
    loss, target = entry.get("loss") or entry["predicted"], entry.get("target", entry)
    registered = "made" in entry
    made = (
        f"written {escape(entry['made'][:16].replace('T', ' '))} UTC"
        if registered
        else "fitted without that run"
    )
    size = ", ".join(
        f"{target[name]:.3g} {word}"
        for name, word in (("params", "parameters"), ("tokens", "tokens"))
        if target[name] is not None
    )
    if (entry.get("extrapolation") or 0) > FAR:
        made += f"; extrapolated {entry['extrapolation']:.3g}-fold in compute, so too narrow"
    about = "; ".join(part for part in (size, made) if part)
    title = f"Predicted {response}"
    shown = [card(title, interval_html(loss), f"{escape(target['run'])}: {about}")]
    if entry["outcome"] is None:
        return [*shown, card("Outcome", "—", "the run has not finished")]
    verdict = {True: "inside the interval", False: "outside the interval", None: ""}[
        entry["inside"]
    ]
    kind = {True: "good", False: "bad", None: ""}[entry["inside"]]
    return [
        *shown,
        card("Outcome", f"{entry['outcome']:.4g}", "nats per token" if response == "loss" else ""),
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
    """One row for each run and baseline."""
    names = [
        "run",
        "N",
        "D",
        "C",
        "loss",
        "± se",
        "bits/byte",
        "D/N",
        "epochs",
        "learning rate",
        "s",
        *(escape(name) for name in points.other),
        "",
    ]
    rows = []
    every = np.argsort(points.flops, kind="stable")[:MOST_ROWS]
    for i in every:
        facts = points.facts[i] if points.facts else {}
        n, d = float(points.params[i]), float(points.tokens[i])
        cells = [
            escape(points.run[i]),
            *(number_cell(v, ".3g") for v in (n, d, points.flops[i])),
            number_cell(points.loss[i], ".4f"),
            number_cell(points.loss_se[i], ".4f"),
            number_cell(facts.get("bits_per_byte"), ".4f"),
            number_cell(d / n, ".3g"),
            number_cell(facts.get("epochs_of_data"), ".3g"),
            number_cell(facts.get("learning_rate"), ".3g"),
            number_cell(facts.get("seconds"), ".3g"),
            *(number_cell(values[i], ".4g") for values in points.other.values()),
            "held out" if points.holdout[i] else "",
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    for b in points.baselines:
        counts = (b.params, b.tokens, b.flops)
        cells = [escape(b.id), *(number_cell(v if v > 0 else None, ".3g") for v in counts)]
        cells += [number_cell(b.loss, ".4f"), number_cell(b.loss_se, ".4f")]
        cells += [""] * (len(names) - len(cells) - 1) + [escape(f"baseline, {b.family}")]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in names)
    more = (
        ""
        if len(points) <= MOST_ROWS
        else f"<p>The first {MOST_ROWS} of {len(points)}; all are in points.csv.</p>"
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def number_cell(value: float | None, form: str) -> str:
    """A number as a cell of a table, empty where it is unknown."""
    return format(value, form) if value is not None and np.isfinite(value) else ""


def settings(points: Points, law: dict[str, Any]) -> str:
    """What all runs share, what varies, and the settings of the analysis."""
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
    """The config.json of every run, flat ({'model.d_model': 64}); none for points from a CSV."""
    root = Path(points.source)
    folders = {
        path.parent.name: path
        for path in (*root.glob("*/config.json"), *root.glob("*/*/config.json"))
    }
    paths = [folders[str(run)] for run in points.run if str(run) in folders]
    return [dict(flat(json.loads(path.read_text()))) for path in paths]


def flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and values of nested dicts."""
    pairs = []
    for key, value in tree.items():
        pairs += (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
        )
    return pairs


def definition(title: str, entries: dict[str, Any]) -> str:
    rows = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in entries.items()
    )
    opened = " open" if len(entries) < 20 else ""
    return (
        f"<details{opened}><summary>{title} ({len(entries)})</summary><dl>{rows}</dl></details>"
        if rows
        else ""
    )
