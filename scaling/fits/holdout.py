"""Held-out runs and registered predictions, compared with their outcomes."""

from typing import Any

import numpy as np

from scaling.fits.isoflop import IsoFlop, frontier
from scaling.fits.parametric import Parametric
from scaling.intervals import FAR, extrapolation, finite, number
from scaling.table import Points
from scaling.validate import Unsupported

SIZES = ("params", "tokens", "flops")


def frontier_value(isoflop_fit: IsoFlop, flops: float) -> dict[str, Any]:
    """The frontier's loss at a compute budget, with its interval."""
    try:
        fitted, draws = frontier(isoflop_fit)
    except Unsupported as error:
        return {**number(None), "reason": str(error)}
    column = {"flops": np.array([flops])}
    drawn = fitted.law.loss(draws, column)[:, 0] if len(draws) else None
    return number(float(fitted.loss(column)[0]), drawn)


def describe_holdout(
    points: Points,
    parametric: Parametric | None,
    isoflop_fit: IsoFlop,
    registered: list[dict[str, Any]],
) -> dict[str, Any]:
    """Every held-out run: its prediction from the other runs, its outcome and the error (outcome /
    prediction - 1). `registered` are predictions of the loss that were written before their runs.
    """
    rows = np.flatnonzero(points.holdout)
    runs, columns = [], points.columns()
    for row in rows if parametric is not None else ():
        law = parametric.law
        inputs = {name: float(values[row]) for name, values in columns.items()}
        predicted = parametric.predict(inputs)
        c = inputs["flops"]
        best = (
            frontier_value(isoflop_fit, c) if len(rows) <= 10 and law.response == "loss" else None
        )
        reach = extrapolation(points.select(~points.holdout), c)
        entry = {"run": str(points.run[row]), **{name: finite(inputs[name]) for name in SIZES}}
        entry |= {name: inputs[name] for name in law.inputs}
        entry |= {"extrapolation": finite(reach), "extrapolated": reach > FAR}
        result = outcome(float(points.response(law)[row]), predicted)
        runs.append(entry | {"predicted": predicted, "frontier": best} | result)
    errors = [abs(entry["error"]) for entry in runs]
    summary = {
        "n": len(rows),
        "mean_error": float(np.mean(errors)) if errors else None,
        "max_error": float(np.max(errors)) if errors else None,
        "inside": int(sum(bool(entry["inside"]) for entry in runs)) if runs else None,
        "runs": runs,
        "registered": [judged(points, record) for record in registered],
    }
    if len(rows) and parametric is None:
        summary["reason"] = "the parametric law could not be fitted"
    return summary


def outcome(value: float, predicted: dict[str, Any]) -> dict[str, Any]:
    """The outcome, the error, and whether the outcome is inside the interval."""
    known = predicted["lo"] is not None
    return {
        "outcome": value,
        "error": value / predicted["value"] - 1,
        "inside": bool(predicted["lo"] <= value <= predicted["hi"]) if known else None,
    }


def judged(points: Points, record: dict[str, Any]) -> dict[str, Any]:
    """A prediction that was written before its run, with the outcome if the run has finished."""
    target = record["target"]
    rows = np.flatnonzero(points.run == target["run"]) if target.get("run") else np.array([], int)
    entry = record | {"extrapolated": record.get("extrapolation", 0) > FAR}
    if not len(rows):
        return entry | {"outcome": None}
    # If the run has several evaluations, take the one closest to the predicted length.
    off = np.abs(np.log(points.tokens[rows] / target["tokens"]))
    return entry | outcome(float(points.loss[rows[off.argmin()]]), record["loss"])
