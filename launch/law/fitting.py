"""Fits a law to a folder of runs or to a CSV; prints it and writes law.json and the report."""

import json
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from data.files import to_path
from launch.alive import alive
from launch.checkout import commit
from launch.config import imports
from launch.errors import bad_input, writing
from launch.law.lines import summary
from launch.watching.runs_folder import runs_in

LOSS_UNIT = "unit of a CSV's losses: nats | bits | auto (nats unless they look like bits)"


def read_points(runs: str | None, table: str | None, law: Any, loss_unit: str) -> Any:
    """The points of a folder of runs or of a CSV, with the columns that the law names. ValueError
    unless exactly one of the two is given."""
    from scaling.csv_file import read_csv
    from scaling.runs import read_runs

    if (runs is None) == (table is None):
        raise ValueError("give either --runs=FOLDER or --table=FILE.csv")
    if runs:
        return read_runs(runs_in(runs), law)
    return read_csv(to_path(table), loss_unit, law)


def require_law(name: str, runs: str | None) -> None:
    """ValueError if there is no such law and the runs keep imports, one of which may register it:
    it says how to execute them."""
    from scaling.laws import LAWS

    if name not in LAWS and runs and (remedy := imports.remedy(to_path(runs))):
        raise ValueError(f"law={name!r} is unknown; use one of {', '.join(LAWS)}{remedy}")


def fit_runs(runs: Path, out: Path) -> dict[str, Any]:
    """Does what `isoflop fit --runs=RUNS --out=OUT` does, for a sweep that has ended; returns
    law.json. BadInput if the runs do not support a law.
    """
    from scaling.design.prediction import prediction_paths
    from scaling.report.page import note_missing_drawing
    from scaling.runs import read_runs
    from scaling.settings import DEFAULTS

    with bad_input():
        note_missing_drawing()
        points = read_runs(runs_in(runs))
    command = [f"--runs={runs}", f"--out={out}"]
    predictions = prediction_paths(runs, None)
    return fit_points(points, DEFAULTS, predictions, command, out=out, in_sweep=True)


def fit_points(
    points: Any,
    settings: Any,
    predictions: Sequence[Path],
    argv: Sequence[str],
    out: str | Path | None = None,
    json_file: str | Path | None = None,
    asked: bool = False,
    in_sweep: bool = False,
) -> dict[str, Any]:
    """Fits the points, prints the law and returns law.json. BadInput if there is no law.

    Writes law.json to `json_file` and the report to the folder `out` if they are given, and only
    then prints. `predictions` are the files of earlier predictions, which may be missing; `argv`
    holds the flags that law.json records. If `asked`, only the settings' law counts as a law:
    iso-FLOP minima or a frontier do not replace it. At the end of a sweep (`in_sweep`) nothing
    is printed if there is no law, and the sweep names its page itself.
    """
    from scaling.design.prediction import name_targets, read_predictions
    from scaling.drafts import write
    from scaling.fits.analysis import analyse
    from scaling.report.page import write_report

    with bad_input(), alive("fitting") as detail:
        registered = name_targets(points, read_predictions(predictions))
        law = analyse(points, settings, registered, lambda n, of: detail(f"bootstrap {n}/{of}"))
    law["made"] = provenance("fit", argv)
    if json_file:
        with writing("json", json_file):
            write(to_path(json_file), json.dumps(law, indent=1) + "\n")
    last_line = ""
    if out:
        with writing("out", out), alive("drawing the report"):
            last_line = report_line(write_report(to_path(out), points, law))
    with bad_input():
        if in_sweep:
            refuse_no_law(law, asked)
            last_line = ""
        print(summary(law) + last_line)
        refuse_no_law(law, asked)
    return law


def refuse_no_law(law: dict[str, Any], asked: bool) -> None:
    """ValueError if the points support no law at all or, if `asked`, not the settings' law."""
    parts = [law[name].get("reason") for name in ("parametric", "isoflop", "envelope")]
    if parts[0] and (asked or all(parts)):
        raise ValueError(f"no law: {parts[0]}")


def provenance(verb: str, argv: Sequence[str]) -> dict[str, Any]:
    """What produced these numbers: the command, the commit of this checkout, the versions, and
    the hashes of the files that were imported, if any."""
    made = {
        "command": " ".join(["isoflop", verb, *map(shlex.quote, argv)]),
        "commit": commit(),
        "versions": {name: metadata.version(name) for name in ("numpy", "scipy")},
    }
    return made | ({"imports": files} if (files := imports.executed()) else {})


def report_line(path: Path) -> str:
    """The last line of a verb's text: where its report is or, if no page was drawn, its numbers."""
    return f"\n{'report' if path.suffix == '.html' else 'numbers'}: {path}"
