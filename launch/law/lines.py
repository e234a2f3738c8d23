"""What the terminal shows of a fitted law: law.json as lines of text."""

from typing import Any

from launch.amounts import amount, flops, with_interval
from scaling.laws.law import symbols
from scaling.printable import printable
from scaling.report.number_text import exponent, nats


def summary(law: dict[str, Any]) -> str:
    """The text that `isoflop fit` prints; `law` is the content of law.json."""
    points, level = law["points"], law["settings"]["level"]
    head = f"{points['n']} points of {points['runs']} runs"
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


def parametric_lines(part: dict[str, Any]) -> list[str]:
    """The parametric law with its constants, or the reason why the points support none."""
    if "reason" in part:
        return [f"no parametric law: {symbols(part['reason'])}"]
    wide = max(len(symbols(name)) for name in part["constants"])
    rows = [
        f"  {symbols(name):<{wide}}  {with_interval(part[name])}"
        + (" fixed" if name in part["fixed"] else "")
        for name in part["constants"]
    ]
    fit = f"{part['loss']} {part['objective']:.6e}, {part['reached']} starts agree"
    return [f"{symbols(part['law'])}   ({fit}; rmse {part['rmse']:.2%})", *rows]


def isoflop_lines(part: dict[str, Any], frontier: dict[str, Any]) -> list[str]:
    """The iso-FLOP minima and the frontier, or why there are none."""
    lines = []
    if "reason" in part:
        lines.append(f"no iso-FLOP exponents: {symbols(part['reason']).split(';')[0]}")
    else:
        a, b = (with_interval(part[name], exponent) for name in ("a", "b"))
        lines.append(f"iso-FLOP: N* ∝ C^{a}, D* ∝ C^{b}")
    for m in part["minima"] if len(part["minima"]) <= 12 else ():
        best = f"N* = {with_interval(m['params'], amount)}, loss {with_interval(m['loss'], nats)}"
        lines.append(f"  C = {flops(m['flops'])}: {m.get('reason', best)}")
    if "reason" in frontier:
        return [*lines, f"no frontier: {symbols(frontier['reason'])}"]
    constants = [f"{symbols(k)} = {with_interval(frontier[k])}" for k in ("E", "K", "gamma")]
    return [*lines, f"frontier {symbols(frontier['law'])}: {', '.join(constants)}"]


def sensitivity_lines(law: dict[str, Any]) -> list[str]:
    """The exponent a under every other analysis, and under every other count."""
    rows = [(row["label"], row["a"]) for row in law["sensitivity"] if row["a"]["value"] is not None]
    rows += [
        (f"N {row['params']}, C {row['flops']}", row["parametric"]["a"])
        for row in law["conventions"]
    ]
    if len(rows) < 2:
        return []
    wide = max(len(label) for label, _ in rows)
    return [
        "the exponent a of other analyses:",
        *(f"  {label:<{wide}}  {with_interval(a, exponent)}" for label, a in rows),
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


def holdout_lines(part: dict[str, Any]) -> list[str]:
    """Predictions with their outcomes."""
    lines = []
    for record in part["registered"]:
        when = f"predicted {record['made']} for {record['target']['run']}"
        result = "not run yet" if record["outcome"] is None else outcome_text(record)
        lines.append(f"{when}: {with_interval(record['loss'], nats)}; {result}")
    for entry in part["runs"][:10] if not part["registered"] else ():
        predicted = with_interval(entry["predicted"], nats)
        lines.append(f"held out {entry['run']}: {predicted}; {outcome_text(entry)}")
    if part["n"] > 1 and part["mean_error"] is not None:
        worst = f"at most {part['max_error']:.2%}"
        lines.append(f"held out {part['n']}: mean error {part['mean_error']:.2%}, {worst}")
    return lines


def outcome_text(entry: dict[str, Any]) -> str:
    """'outcome 1.5200, error +0.40%, inside the interval'."""
    where = {True: ", inside the interval", False: ", OUTSIDE the interval", None: ""}
    text = f"outcome {nats(entry['outcome'])}, error {entry['error']:+.2%}{where[entry['inside']]}"
    if entry.get("extrapolated"):
        text += f" (extrapolated {entry['extrapolation']:.3g}-fold in compute)"
    return text
