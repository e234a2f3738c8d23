"""isoflop predict: predicts the loss of a run before the run starts, and records it.

isoflop predict --runs=runs/quickstart --params=1.5e6 --tokens=9e7
isoflop predict --table=points.csv --params=7e10 --flops=5.76e23

Fits the scaling law to the finished runs, or to a CSV, and writes a file with the law, the hash of
the points, the predicted loss with its interval, and the time. The file never changes afterwards;
`isoflop fit` on the same runs or table adds the outcome. Give two of --params, --tokens and
--flops. Without --out the file is RUNS.prediction.json or TABLE.prediction.json, beside the folder
or the table that was read; `isoflop fit` finds it there. Another target, or other points, get a
file with a number, such as prediction-2.json.
"""

from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.amounts import amount, flops, with_interval
from launch.errors import DONE, bad_input, writing
from launch.law.fitting import LOSS_UNIT, read_points, require_law
from scaling.laws.law import symbols
from scaling.report.number_text import nats, three_digits

NUMBERS = {
    "params": "parameters of the run",
    "tokens": "tokens of the run",
    "flops": "training FLOPs of the run; default: 6·params·tokens",
}


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, real = absl_flags.DEFINE_string, absl_flags.DEFINE_float
    whole, path = absl_flags.DEFINE_integer, flags.define_path
    path("runs", None, "folder of a sweep (give this or --table)", values)
    path("table", None, "CSV of points (give this or --runs)", values)
    for name, meaning in NUMBERS.items():
        flags.define_amount(name, None, meaning, values)
    text("run", None, "id of the future run; default: the run is recognised by its size", values)
    path(
        "out", None, "write the prediction to this file; default: beside --runs or --table", values
    )
    text("holdout", None, "runs to leave out of the fit, as in isoflop fit", values)
    text("law", "parametric", "law to fit, as in isoflop fit", values)
    text("loss_unit", "auto", LOSS_UNIT, values)
    whole("draws", 1000, "bootstrap draws", flag_values=values)
    whole("seed", 42, "bootstrap seed", flag_values=values)
    text("objective", "huber", "loss of the fit: huber | squares | absolute", values)
    real("delta", 1e-3, "threshold of the Huber loss, in log-loss", flag_values=values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes the prediction and prints it. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    from scaling.design.prediction import (
        SETTINGS,
        complete_target,
        prediction_paths,
        refuse_finished,
        refuse_other_settings,
        write_prediction,
    )
    from scaling.selection import hold_out
    from scaling.settings import Settings

    with bad_input():
        if values.draws < 1:
            raise ValueError(f"draws={values.draws}: a prediction needs an interval; use 1000")
        target = complete_target(**{name: values[name].value for name in NUMBERS})
        target["run"] = values.run
        if values.out and to_path(values.out).is_dir():
            raise ValueError(f"out={values.out} is a folder; name a file: {values.out}/a.json")
        require_law(values.law, values.runs)
        settings = Settings(**{name: values[name].value for name in SETTINGS})
        law = settings.fitted_law
        points = read_points(values.runs, values.table, law, values.loss_unit)
        points = hold_out(points, values.holdout, law)
        refuse_finished(points, target)
        usual = prediction_paths(*(p and to_path(p) for p in (values.runs, values.table)))
        path, *earlier = [to_path(values.out)] if values.out else usual
        with writing("out", path), alive("predicting"):
            record = write_prediction(path, points, target, settings, earlier)
        refuse_other_settings(record, settings)
    print(summary(record))
    return DONE


def summary(record: dict[str, Any]) -> str:
    """The text that the verb prints; `record` is what `write_prediction` returns."""
    from scaling.intervals import FAR

    loss, frontier = (with_interval(record[name], nats) for name in ("loss", "frontier"))
    target, law, points = record["target"], record["law"], record["points"]
    size = f"{amount(target['params'])} parameters, {amount(target['tokens'])} tokens"
    lines = [
        f"{target['run'] or 'a run'} of {size}, {flops(target['flops'])} FLOPs",
        f"  predicted loss {loss} nats per token, {record['level']:.0%} interval",
    ]
    if record["frontier"]["value"] is not None:
        lines.append(f"  frontier fit at this compute: {frontier} (a separate fit)")
    # Predictions of an older version have no list of constants; they are of the parametric law.
    names = law.get("constants", ("E", "A", "B", "alpha", "beta"))
    constants = ", ".join(f"{symbols(k)} {three_digits(law[k]['value'])}" for k in names)
    lines.append(f"  {symbols(law['law'])}: {constants}; from {points['n']} points")
    if record["extrapolation"] > FAR:
        far = f"{record['extrapolation']:.3g} times the largest fitted compute"
        lines.append(f"  EXTRAPOLATION: {far}; an interval from the fit alone is too narrow there")
    if record["kept"]:
        lines.append(f"already predicted at {record['made']}; kept: {record['path']}")
    else:
        lines.append(f"written {record['made']}: {record['path']}")
    return "\n".join(lines)
