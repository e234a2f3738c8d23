"""The verb `predict`: the loss of a run, written to a file before the run starts."""

from pathlib import Path
from typing import Any

from absl import flags

from launch.errors import bad_input, writing
from launch.flags import parse
from launch.verbs.fit import LOSS_UNIT, interval, read_points

DOC = """isoflop predict --runs=runs/quickstart | --table=points.csv --params=7e9 --tokens=1.4e11

Fits the scaling law to the finished runs, or to a CSV, and writes down the loss that a run of that
size and length will have: the law, the hash of the points, the interval, the time. The file is
never changed afterwards; `isoflop fit` on the same runs or table adds the outcome. Two of --params,
--tokens and --flops are enough. Without --out the file lies in the folder of the runs
(prediction.json) or beside the table (TABLE.prediction.json), where `isoflop fit` finds it."""

NUMBERS = {
    "params": "parameters of the run",
    "tokens": "tokens of the run",
    "flops": "training FLOPs of the run; 6·params·tokens if left out",
}


def flag_values() -> flags.FlagValues:
    """The flags of this verb."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_string("runs", None, "folder of a sweep", **own)
    flags.DEFINE_string("table", None, "CSV of points", **own)
    for name, meaning in NUMBERS.items():
        flags.DEFINE_float(name, None, meaning, **own)
    flags.DEFINE_string(
        "run", None, "id that the run will have; else it is known by its size", **own
    )
    flags.DEFINE_string("out", None, "file of the prediction", **own)
    flags.DEFINE_string("holdout", None, "points to leave out of the fit, as in isoflop fit", **own)
    flags.DEFINE_string("law", "parametric", "law of the loss, as in isoflop fit", **own)
    flags.DEFINE_string("loss_unit", "auto", LOSS_UNIT, **own)
    flags.DEFINE_integer("draws", 1000, "bootstrap draws", **own)
    flags.DEFINE_integer("seed", 42, "of the bootstrap", **own)
    flags.DEFINE_string("objective", "huber", "huber | squares | absolute", **own)
    flags.DEFINE_float("delta", 1e-3, "of the Huber loss, in log-loss", **own)
    return values


def main(argv: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    values = flag_values()
    parse(values, argv, DOC)
    from scaling.design.prediction import default_path, refuse_finished, sized, write_prediction
    from scaling.selection import hold_out
    from scaling.settings import Settings

    with bad_input():
        if values.draws < 1:
            raise ValueError(f"draws={values.draws}: a prediction needs an interval; use 1000")
        target = sized(**{name: values[name].value for name in NUMBERS}) | {"run": values.run}
        if values.out and Path(values.out).is_dir():
            raise ValueError(f"out={values.out} is a folder; name a file: {values.out}/a.json")
        settings = Settings(
            law=values.law,
            draws=values.draws,
            seed=values.seed,
            objective=values.objective,
            delta=values.delta,
        )
        law = settings.fitted_law
        points = read_points(values.runs, values.table, law, values.loss_unit)
        points = hold_out(points, values.holdout, law)
        refuse_finished(points, target)
        path = Path(values.out) if values.out else default_path(values.runs, values.table)
        with writing("out", path):
            record = write_prediction(path, points, target, settings)
    print(summary(record))
    return 0


def summary(record: dict[str, Any]) -> str:
    """What the terminal shows."""
    from scaling.intervals import FAR

    target, law, points = record["target"], record["law"], record["points"]
    size = f"{target['params']:.4g} parameters, {target['tokens']:.4g} tokens"
    lines = [
        f"{target['run'] or 'a run'} of {size}, {target['flops']:.3g} FLOPs",
        f"  predicted loss {interval(record['loss'], '.5g')} nats per token, {record['level']:.0%}",
    ]
    if record["frontier"]["value"] is not None:
        lines.append(f"  the frontier's best loss there: {interval(record['frontier'], '.5g')}")
    # Predictions of an older version lack the list of constants; all are of the parametric law.
    names = law.get("constants", ("E", "A", "B", "alpha", "beta"))
    constants = ", ".join(f"{k} {law[k]['value']:.4g}" for k in names)
    lines.append(f"  {law['law']}: {constants}; from {points['n']} points")
    if record["extrapolation"] > FAR:
        far = f"{record['extrapolation']:.3g} times the largest fitted compute"
        lines.append(f"  EXTRAPOLATION: {far}; an interval from the fit alone is too narrow there")
    return "\n".join([*lines, f"written {record['made']}: {record['path']}"])
