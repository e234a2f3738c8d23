"""The page of a sweep: which configuration is best, every trial, what each key does, the law."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from scaling.drafts import read_object, write
from scaling.laws import LAWS
from scaling.ranking.trials import Sweep
from scaling.report import word_map
from scaling.report.explorer.trial_columns import Curves, curve_columns, trial_columns
from scaling.report.frame import embedded, frame, missing_package
from scaling.report.number_text import escape, prose
from scaling.report.page import law_part
from scaling.report.wording import constants, warnings
from scaling.runs import read_runs
from scaling.table import Points, count, fitted_rows, sha256

BODY = Path(__file__).with_name("sweep.html")
FILES = ("law.json", "points.csv", "ranking.json", "ranking.csv", "words.json")
"""What may lie beside a page."""


@dataclass(frozen=True)
class LawPart:
    """What the page says about the law of a sweep, with the specifications of its figures.
    `version` tells law.json apart from an earlier one."""

    html: str
    specs: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""


def write_sweep_page(sweep: Sweep, ranking: Mapping[str, Any], out: Path | None = None) -> Path:
    """Writes index.html into `out` (default: report/ in the sweep's folder), with the law that lies
    there if it is that of these trials; returns its path."""
    out = out or sweep.folder / "report"
    curves = curve_columns(sweep, ranking["metric"])
    data = trial_columns(sweep, ranking, curves)
    return write(out / "index.html", sweep_page(data, curves, read_law(sweep, out), out))


def sweep_page(data: Mapping[str, Any], curves: Curves, law: LawPart, out: Path) -> str:
    """The whole page as text. `out` is the folder that it will lie in."""
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    part = f'<div id="law">\n{law.html}\n</div>'
    # A ladder is trained for its law, other sweeps for their ranking.
    above = f'{part}\n<h2 class="part">The trials</h2>' if law.specs else ""
    words, of_words = word_map.part(out)
    beside = [f'<a href="{name}">{name}</a>' for name in FILES if (out / name).is_file()]
    body = Template(BODY.read_text(encoding="utf-8")).substitute(
        name=escape(data["sweep"]),
        subtitle=escape(f"{len(data['trials']['id'])} trials of {data['source']}; written {made}"),
        files=", ".join(beside) or "none",
        law_above=above,
        law_below=words + ("" if above else part),
    )
    carried = dict(data) | {"law_version": law.version}
    scripts = embedded("data", carried) + embedded("curve-data", curves)
    return frame(f"Sweep {data['sweep']}", body, dict(law.specs) | of_words, scripts)


def read_law(sweep: Sweep, folder: Path) -> LawPart:
    """The law.json in a folder as a part of the page; a line about why there is none, or that it is
    the law of other trials."""
    file = folder / "law.json"
    fit = f"isoflop fit --runs={sweep.folder} --out={folder}"
    if not file.is_file():
        return LawPart(_none(f"No law has been fitted to these trials; {fit} fits one."))
    try:
        law = read_object(file)
        known = LAWS.get(law["settings"]["law"], LAWS["parametric"])
        points = read_runs(sweep.folder, known)
        if sha256(fitted_rows(_counted(points, law["settings"]), known)) != law["points"]["sha256"]:
            line = "law.json was fitted to other points than those of these trials; "
            line += f"{fit} fits it again."
            return LawPart(_none(line))
        reasons = [law[name].get("reason") for name in ("parametric", "isoflop", "envelope")]
        version = str(file.stat().st_mtime_ns)
        if all(reasons):
            return LawPart(_refused(law), version=version)
        drawn = []
        if not missing_package():
            from scaling.report.figures import figures

            drawn = figures(points, law)
        specs = {figure.name: figure.chart.to_dict() for figure in drawn}
        head = '<h2 class="part">The scaling law</h2>'
        return LawPart(head + law_part(points, law, drawn), specs, version)
    except (KeyError, TypeError, ValueError, OSError) as error:
        return LawPart(_none(f"law.json cannot be shown ({error}); {fit} writes it again."))


def _counted(points: Points, settings: Mapping[str, Any]) -> Points:
    """The points as the law counts their parameters and FLOPs."""
    counts = settings.get("params", "total"), settings.get("flops", "6nd")
    return points if counts == ("total", "6nd") else count(points, *counts)


def _none(line: str) -> str:
    return (
        f'<section class="panel" id="laws"><h2>The scaling law</h2><p>{escape(line)}</p></section>'
    )


def _refused(law: Mapping[str, Any]) -> str:
    """Why these trials support no law."""
    line = prose(f"No scaling law from these trials: {law['parametric']['reason']}.")
    inside = f"<h2>The scaling law</h2><p>{line}</p>{constants(law)}"
    more = f"<details><summary>Warnings</summary>{warnings(law)}</details>"
    return f'<section class="panel tables" id="laws">{inside}{more}</section>'
