"""The verb `fit`: a scaling law from finished runs or from anyone's CSV, with its report."""

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch.errors import bad_input, writing
from launch.flags import ROOT, parse

DOC = """isoflop fit --runs=runs/quickstart | --table=points.csv [--holdout=…] [--out=report/]

Fits the scaling laws to finished runs, or to a CSV with columns params, tokens, loss (nats per
token) and optionally flops, loss_se, run, holdout; a --law may read other columns. Prints a
summary; --out adds the report with its figures, law.json and points.csv."""


LOSS_UNIT = "of a CSV: nats | bits | auto, nats unless they look like bits"
DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}
# The fields of scaling.settings.Settings: name, default, meaning.
SETTINGS = (
    ("law", "parametric", "law fitted to all runs; scaling/laws/ lists them"),
    ("objective", "huber", "huber | squares | absolute"),
    ("delta", 1e-3, "of the Huber loss, in log-loss"),
    ("weights", "none", "none | loss_se: runs weigh by their standard error"),
    ("draws", 1000, "bootstrap draws; 0: no intervals"),
    ("seed", 42, "of the bootstrap; 42 draws as Besiroglu et al. 2024 did"),
    ("resampling", "auto", "of the bootstrap: runs | residuals | auto, by their number"),
    ("params", "total", "count N as total | non_embedding | with_head"),
    ("flops", "6nd", "count C as 6nd | kaplan | chinchilla | palm"),
    ("interpolation", "parabola", "of iso-FLOP budgets: parabola | akima"),
    ("window", 5, "points of a budget that its parabola goes through"),
)


def flag_values() -> flags.FlagValues:
    """The flags of this verb."""
    values = flags.FlagValues()
    text = {"flag_values": values}
    flags.DEFINE_string("runs", None, "folder of a sweep", **text)
    flags.DEFINE_string("table", None, "CSV of points", **text)
    flags.DEFINE_string("holdout", None, "'largest', 'flops>1e21', or a run's id", **text)
    flags.DEFINE_string(
        "prediction", None, "file that isoflop predict wrote, where it was given --out", **text
    )
    flags.DEFINE_string("out", None, "folder of the report; none is written without", **text)
    flags.DEFINE_string("json", None, "file for law.json", **text)
    flags.DEFINE_multi_string(
        "fix", [], "constants of the law that are not fitted: alpha=0.35,E=1.7; repeatable", **text
    )
    flags.DEFINE_integer("drop_worst", 0, "leave out this many runs of highest loss", **text)
    flags.DEFINE_string("loss_unit", "auto", LOSS_UNIT, **text)
    for name, default, meaning in SETTINGS:
        define = DEFINE[type(default)]
        define(name, default, meaning, **text)
    return values


def main(argv: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    values = flag_values()
    parse(values, argv, DOC)
    # The room loads when there is work: --help answers at once.
    from scaling.design.prediction import default_path
    from scaling.report.page import require_drawing
    from scaling.selection import drop_worst, hold_out
    from scaling.settings import Settings

    with bad_input():
        if values.out:
            require_drawing()
        given = {name: values[name].value for name, _, _ in SETTINGS}
        settings = Settings(**given, fix=fixed(values.fix))
        law = settings.fitted_law
        points = read_points(values.runs, values.table, law, values.loss_unit)
        points = drop_worst(hold_out(points, values.holdout, law), values.drop_worst, law)
        if values.prediction and not Path(values.prediction).is_file():
            raise ValueError(f"prediction={values.prediction} does not exist; see isoflop predict")
    prediction = Path(values.prediction or default_path(values.runs, values.table))
    places = {"out": values.out, "json_file": values.json}
    fit_points(points, settings, prediction, argv, **places, asked=values["law"].present > 0)
    return 0


def fit_runs(runs: Path, out: Path) -> dict[str, Any]:
    """Fits the finished runs of a folder by the defaults, prints the summary and writes the report
    into `out`: what `isoflop fit --runs=RUNS --out=OUT` does. Returns law.json; BadInput where the
    runs carry no law.
    """
    from scaling.design.prediction import default_path
    from scaling.report.page import require_drawing
    from scaling.runs import read_runs
    from scaling.settings import DEFAULTS

    with bad_input():
        require_drawing()
        points = read_runs(runs)
    command = [f"--runs={runs}", f"--out={out}"]
    return fit_points(points, DEFAULTS, default_path(str(runs), None), command, out=out)


def fit_points(
    points: Any,
    settings: Any,
    prediction: Path,
    argv: Sequence[str],
    out: str | Path | None = None,
    json_file: str | Path | None = None,
    asked: bool = False,
) -> dict[str, Any]:
    """Fits, prints, and writes law.json and the report where they are wanted; returns law.json.

    `prediction` is the file of predictions made before, if there are any; `argv` the flags of the
    command that law.json names; `asked` says that the settings' law alone will do. BadInput.
    """
    from scaling.design.prediction import read_predictions, recognised
    from scaling.drafts import write
    from scaling.fits.analysis import analyse
    from scaling.report.page import write_report

    with bad_input():
        registered = recognised(points, read_predictions(prediction.parent, prediction.stem))
        law = analyse(points, settings, registered, progress_line if settings.draws else None)
    law["made"] = made("fit", argv)
    if json_file:
        with writing("json", json_file):
            write(Path(json_file), json.dumps(law, indent=1) + "\n")
    print(summary(law))
    if out:
        with writing("out", out):
            print(f"report: {write_report(Path(out), points, law)}")
    with bad_input():
        refuse_no_law(law, asked)
    return law


def fixed(entries: Sequence[str]) -> dict[str, float]:
    """{'alpha': .35} from the values of --fix. ValueError where one is no NAME=NUMBER."""
    found = {}
    for entry in ",".join(entries).split(",") if entries else ():
        name, _, value = entry.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise ValueError(f"fix={entry} has no number; write --fix=alpha=0.35") from None
        if name.strip() in found:
            raise ValueError(f"fix={entry}: {name.strip()} is fixed twice; keep one")
        found[name.strip()] = number
    return found


def refuse_no_law(law: dict[str, Any], asked: bool) -> None:
    """ValueError where the points do not carry the law that was asked for, or none at all."""
    parts = [law[name].get("reason") for name in ("parametric", "isoflop", "envelope")]
    if parts[0] and (asked or all(parts)):
        raise ValueError(f"no law: {parts[0]}")


def made(verb: str, argv: Sequence[str]) -> dict[str, Any]:
    """How these numbers came to be: the command, the commit of this checkout, the versions."""
    from importlib import metadata

    packages = ("numpy", "scipy")
    return {
        "command": " ".join(["isoflop", verb, *map(shlex.quote, argv)]),
        "commit": commit(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def commit() -> str | None:
    """The commit of this checkout, with a plus where files differ from it; None outside git."""
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changes else "")


def read_points(runs: str | None, table: str | None, law: Any, loss_unit: str) -> Any:
    """The points of a folder of runs or of a CSV, with the columns that the law names."""
    from scaling.csv_file import read_csv
    from scaling.runs import read_runs

    if (runs is None) == (table is None):
        raise ValueError("give either --runs=FOLDER or --table=FILE.csv")
    return read_runs(runs, law) if runs else read_csv(table, loss_unit, law)


def progress_line(done: int, total: int) -> None:
    """The bootstrap's progress: on a terminal a line that rewrites itself, else nothing."""
    if sys.stderr.isatty():
        end = "\r" if done < total else "\r\033[K"
        print(f"bootstrap {done}/{total}", end=end, file=sys.stderr, flush=True)


def interval(v: dict[str, Any], form: str = ".4g") -> str:
    """'0.35 [0.31, 0.39]'."""
    if v["value"] is None:
        return "—"
    text = format(v["value"], form)
    return text if v["lo"] is None else f"{text} [{v['lo']:{form}}, {v['hi']:{form}}]"


def summary(law: dict[str, Any]) -> str:
    """What the terminal shows."""
    points, level = law["points"], law["settings"]["level"]
    head = f"{points['n']} points of {points['runs']} runs"
    held = f", {points['held_out']} held out" if points["held_out"] else ""
    lines = [f"{head}{held} ({points['source']}); intervals hold {level:.0%}"]
    lines += parametric_lines(law["parametric"])
    lines += isoflop_lines(law["isoflop"], law["frontier"])
    lines += sensitivity_lines(law)
    lines += baseline_lines(law["baselines"])
    lines += holdout_lines(law["holdout"])
    lines += [f"warning: {w['message']} [{w['threshold']}; {w['source']}]" for w in law["warnings"]]
    return "\n".join(lines)


def parametric_lines(part: dict[str, Any]) -> list[str]:
    """The parametric law."""
    if "reason" in part:
        return [f"parametric law: none. {part['reason']}"]
    rows = [
        f"  {name:<7} {interval(part[name])}{' fixed' * (name in part['fixed'])}"
        for name in part["constants"]
    ]
    fit = f"{part['loss']} {part['objective']:.6e}, {part['reached']} starts agree"
    return [f"{part['law']}   ({fit}; rmse {part['rmse']:.2%})", *rows]


def isoflop_lines(part: dict[str, Any], frontier: dict[str, Any]) -> list[str]:
    """The iso-FLOP minima and the frontier."""
    lines = []
    if "reason" in part:
        lines.append(f"iso-FLOP exponents: none. {part['reason'].split(';')[0]}")
    else:
        lines.append(
            f"iso-FLOP: N* ∝ C^{interval(part['a'], '.3f')}, D* ∝ C^{interval(part['b'], '.3f')}"
        )
    for m in part["minima"] if len(part["minima"]) <= 12 else ():
        best = f"N* = {interval(m['params'], '.3g')}, loss {interval(m['loss'])}"
        lines.append(f"  C = {m['flops']:.3g}: {m.get('reason', best)}")
    if "reason" in frontier:
        return [*lines, f"frontier: none. {frontier['reason']}"]
    constants = ", ".join(f"{name} = {interval(frontier[name])}" for name in ("E", "K", "gamma"))
    return [*lines, f"frontier {frontier['law']}: {constants}"]


def sensitivity_lines(law: dict[str, Any]) -> list[str]:
    """The exponent a under every other analysis, and under every other count."""
    rows = [
        (f"{row['label']}", row["a"]) for row in law["sensitivity"] if row["a"]["value"] is not None
    ]
    rows += [
        (f"N {row['params']}, C {row['flops']}", row["parametric"]["a"])
        for row in law["conventions"]
    ]
    if len(rows) < 2:
        return []
    wide = max(len(label) for label, _ in rows)
    return ["a otherwise:", *(f"  {label:<{wide}}  {interval(a)}" for label, a in rows)]


def baseline_lines(entries: list[dict[str, Any]]) -> list[str]:
    """One line for each baseline; baselines are never fitted."""
    lines = []
    for entry in entries:
        error = "" if entry["loss_se"] is None else f" ± {entry['loss_se']:.4f}"
        counts = [("params", "parameters"), ("tokens", "tokens")]
        size = ", ".join(f"{entry[key]:.3g} {word}" for key, word in counts if entry[key])
        family = f"{entry['family']}, " if entry["family"] else ""
        lines.append(f"baseline {entry['id']} ({family}{size}): {entry['loss']:.4f}{error}")
    return lines


def holdout_lines(part: dict[str, Any]) -> list[str]:
    """Predictions and how they came out."""
    lines = []
    for record in part["registered"]:
        when = f"predicted {record['made']} for {record['target']['run']}"
        result = "not run yet" if record["outcome"] is None else came_out(record)
        lines.append(f"{when}: {interval(record['loss'])}; {result}")
    for entry in part["runs"][:10] if not part["registered"] else ():
        lines.append(f"held out {entry['run']}: {interval(entry['predicted'])}; {came_out(entry)}")
    if part["n"] > 1 and part["mean_error"] is not None:
        worst = f"at most {part['max_error']:.2%}"
        lines.append(f"held out {part['n']}: mean error {part['mean_error']:.2%}, {worst}")
    return lines


def came_out(entry: dict[str, Any]) -> str:
    """'outcome 1.52, error +0.4 %, inside the interval'."""
    where = {True: ", inside the interval", False: ", OUTSIDE the interval", None: ""}
    text = f"outcome {entry['outcome']:.4g}, error {entry['error']:+.2%}{where[entry['inside']]}"
    if entry.get("extrapolated"):
        text += f" (extrapolated {entry['extrapolation']:.3g}-fold in compute)"
    return text
