"""isoflop fit: fits scaling laws to finished runs or to anyone's CSV, and writes the report.

isoflop fit --runs=runs/quickstart --out=report/
isoflop fit --table=points.csv --holdout="flops>1e21" --json=law.json
isoflop fit --table=points.csv --fix=alpha=.35,E=1.7

A CSV has the columns params, tokens, loss (nats per token) and optionally flops, loss_se, run,
holdout; another --law may read other columns. Prints a summary; --out adds the report with its
figures, law.json and points.csv. --fix holds constants of the law at given values, in the fit and
in the bootstrap.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.errors import DONE, bad_input
from launch.law.fitting import LOSS_UNIT, fit_points, read_points, require_law

# The fields of scaling.settings.Settings: name, default, meaning.
SETTINGS = (
    ("law", "parametric", "law to fit; docs/scaling-laws.md lists them"),
    ("objective", "huber", "loss of the fit: huber | squares | absolute"),
    ("delta", 1e-3, "threshold of the Huber loss, in log-loss"),
    ("weights", "none", "weights of the runs: none | loss_se (by their standard errors)"),
    ("draws", 1000, "bootstrap draws; 0: no intervals"),
    ("seed", 42, "bootstrap seed; 42 reproduces Besiroglu et al. 2024"),
    ("resampling", "auto", "bootstrap by runs | residuals | auto (residuals below 60 runs)"),
    ("params", "total", "how N is counted: total | non_embedding | with_head"),
    ("flops", "6nd", "how C is counted: 6nd | kaplan | chinchilla | palm"),
    ("interpolation", "parabola", "curve through the points of one budget: parabola | akima"),
    ("window", 5, "points per budget that the parabola is fitted to"),
)


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    path = flags.define_path
    define = {str: text, int: whole, float: absl_flags.DEFINE_float}
    path("runs", None, "folder of a sweep (give this or --table)", values)
    path("table", None, "CSV of points (give this or --runs)", values)
    text("holdout", None, "runs to predict: largest, flops>1e21, or a run's id", values)
    scored = "prediction file to score; needed only if isoflop predict wrote it with --out"
    path("prediction", None, scored, values)
    path("out", None, "folder of the report; default: no report", values)
    path("json", None, "write law.json to this file", values)
    fixes = "constants of the law to hold fixed, such as alpha=0.35,E=1.7"
    absl_flags.DEFINE_multi_string("fix", [], fixes, values)
    whole(
        "drop_worst",
        0,
        "leave out this many runs of highest loss; this biases the law",
        flag_values=values,
    )
    text("loss_unit", "auto", LOSS_UNIT, values)
    for name, default, meaning in SETTINGS:
        define[type(default)](name, default, meaning, flag_values=values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the law and writes what the flags ask for. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    # Imported after parsing, so that --help answers at once.
    from scaling.design.prediction import prediction_paths
    from scaling.report.page import note_missing_drawing
    from scaling.selection import drop_worst, hold_out
    from scaling.settings import Settings

    with bad_input():
        if values.out:
            note_missing_drawing()
        require_law(values.law, values.runs)
        given = {name: values[name].value for name, _, _ in SETTINGS}
        settings = Settings(**given, fix=fixed(values.fix))
        law = settings.fitted_law
        points = read_points(values.runs, values.table, law, values.loss_unit)
        points = drop_worst(hold_out(points, values.holdout, law), values.drop_worst, law)
        if values.prediction and not to_path(values.prediction).is_file():
            raise ValueError(f"prediction={values.prediction} does not exist; see isoflop predict")
    known = [to_path(values.prediction)] if values.prediction else None
    predictions = known or prediction_paths(
        *(p and to_path(p) for p in (values.runs, values.table))
    )
    files = {"out": values.out, "json_file": values.json}
    fit_points(points, settings, predictions, argv, **files, asked=values["law"].present > 0)
    return DONE


def fixed(entries: Sequence[str]) -> dict[str, float]:
    """{'alpha': .35} from the values of --fix. ValueError if one is not NAME=NUMBER."""
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
