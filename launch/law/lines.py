"""What the terminal shows of a fitted law: law.json as lines of text."""

from typing import Any

from launch.amounts import amount, flops, with_interval
from scaling.laws.law import symbols
from scaling.printable import printable
from scaling.report.number_text import deviation, exponent, nats

MOST_MINIMA, MOST_HELD_OUT = 12, 10  # lines on the terminal; law.json has all


def summary(law: dict[str, Any]) -> str:
    """The text that `isoflop fit` prints; `law` is the content of law.json."""
    points, level = law["points"], law["settings"]["level"]
    head = f"{points['n']} points of {points['runs']} runs fitted"
    held = f", {points['held_out']} held out" if points["held_out"] else ""
    lines = [f"{head}{held} ({points['source']}); intervals hold {level:.0%}"]
    lines += parametric_lines(law["parametric"])
    lines += isoflop_lines(law["isoflop"], law["frontier"])
    lines += sensitivity_lines(law)
    lines += baseline_lines(law["baselines"])
    lines += holdout_lines(law["holdout"])
    lines += [
        f"warning: {symbols(w['message'])} [{symbols(w['threshold'])}; {w['source']}]"
        for w in law["warnings"]
    ]
    return "\n".join(printable(line) for line in lines)


def parametric_lines(parametric: dict[str, Any]) -> list[str]:
    """The parametric law with its constants, or the reason why the points do not support it."""
    if "reason" in parametric:
        return [f"no parametric law: {symbols(parametric['reason'])}"]
    constants = parametric["constants"]
    width = max(len(symbols(name)) for name in constants)
    rows = [
        f"  {symbols(name):<{width}}  {with_interval(parametric[name])}"
        + (" fixed" if name in parametric["fixed"] else "")
        for name in constants
    ]
    agree = f"{parametric['reached']} of {parametric['starts']} starts agree"
    value = f"{parametric['loss']} {parametric['objective']:.3e}"
    fit = f"{value}, {agree}; rmse {deviation(parametric)}"
    return [f"{symbols(parametric['law'])}   ({fit})", *rows]


def isoflop_lines(isoflop: dict[str, Any], frontier: dict[str, Any]) -> list[str]:
    """The iso-FLOP minima and the frontier, or the reasons why the points do not support them."""
    lines = []
    if "reason" in isoflop:
        lines.append(f"no iso-FLOP exponents: {symbols(isoflop['reason']).split(';')[0]}")
    else:
        a, b = (with_interval(isoflop[name], exponent) for name in ("a", "b"))
        lines.append(f"iso-FLOP: N* ∝ C^{a}, D* ∝ C^{b}")
    minima = []
    for m in isoflop["minima"]:
        best = f"N* = {with_interval(m['params'], amount)}, loss {with_interval(m['loss'], nats)}"
        minima.append(f"  C = {flops(m['flops'])}: {m.get('reason', best)}")
    lines += first_lines(minima, MOST_MINIMA)
    if "reason" in frontier:
        return [*lines, f"no frontier: {symbols(frontier['reason'])}"]
    constants = [f"{symbols(k)} = {with_interval(frontier[k])}" for k in ("E", "K", "gamma")]
    return [*lines, f"frontier {symbols(frontier['law'])}: {', '.join(constants)}"]


def first_lines(lines: list[str], most: int) -> list[str]:
    """The first `most` lines, and the number of the others."""
    more = len(lines) - most
    return lines if more <= 0 else [*lines[:most], f"  … and {more} more; --json writes all"]


def sensitivity_lines(law: dict[str, Any]) -> list[str]:
    """The exponent a under every other analysis (approaches 1 to 3 are those of Hoffmann et al.
    2022), and under every other count of N and C."""
    rows = [
        ("approach " * (row["group"] == "approach") + row["label"], row["a"])
        for row in law["sensitivity"]
        if row["a"]["value"] is not None
    ]
    rows += [
        (f"--params={row['params']} --flops={row['flops']}", row["parametric"]["a"])
        for row in law["conventions"]
    ]
    if len(rows) < 2:
        return []
    width = max(len(label) for label, _ in rows)
    return [
        "the exponent a of other analyses:",
        *(f"  {label:<{width}}  {with_interval(a, exponent)}" for label, a in rows),
    ]


def baseline_lines(entries: list[dict[str, Any]]) -> list[str]:
    """One line for each baseline; baselines are never fitted."""
    lines = []
    for entry in entries:
        error = "" if entry["loss_se"] is None else f" ± {entry['loss_se']:.4f}"
        counts = [("params", "parameters"), ("tokens", "tokens")]
        size = ", ".join(f"{amount(entry[key])} {word}" for key, word in counts if entry[key])
        family = f"{entry['family']}, " if entry["family"] else ""
        lines.append(f"baseline {entry['id']} ({family}{size}): {entry['loss']:.4f}{error}")
    return lines


def holdout_lines(holdout: dict[str, Any]) -> list[str]:
    """Predictions with their outcomes: those on file, then those of the other held-out runs."""
    lines = []
    for record in holdout["registered"]:
        when = f"predicted {record['made']} for {record['target']['run']}"
        result = "not run yet" if record["outcome"] is None else outcome_text(record)
        lines.append(f"{when}: {with_interval(record['loss'], nats)}; {result}")
    on_file = {record["target"]["run"] for record in holdout["registered"]}
    others = []
    for entry in holdout["runs"]:
        if entry["run"] not in on_file:
            predicted = with_interval(entry["predicted"], nats)
            others.append(f"held out {entry['run']}: {predicted}; {outcome_text(entry)}")
    lines += first_lines(others, MOST_HELD_OUT)
    if holdout["n"] > 1 and holdout["mean_error"] is not None:
        worst = f"at most {holdout['max_error']:.2%}"
        lines.append(f"held out {holdout['n']}: mean error {holdout['mean_error']:.2%}, {worst}")
    return lines


def outcome_text(entry: dict[str, Any]) -> str:
    """An outcome in words, such as 'outcome 1.5200, error +0.40%, inside the interval'."""
    where = {True: ", inside the interval", False: ", OUTSIDE the interval", None: ""}
    text = f"outcome {nats(entry['outcome'])}, error {entry['error']:+.2%}{where[entry['inside']]}"
    if entry.get("extrapolated"):
        text += f" (extrapolated {entry['extrapolation']:.3g}-fold in compute)"
    return text
