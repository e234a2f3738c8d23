"""This file says in text what a pilot found and which ladder it proposes."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch.sweep.live import si
from launch.verbs.pilot import precision_lines


def summary(told: Mapping[str, Any]) -> str:
    """What the terminal shows of a pilot."""
    pilot, exponent = told["pilot"], told["pilot"]["exponent"]
    budgets = ", ".join(f"{m['flops']:.3g}" for m in pilot["minima"])
    lines = [
        f"pilot: {pilot['runs']} runs at {budgets} FLOPs, {told['share']:.1%} of the ladder's "
        "compute",
        *minima_lines(pilot["minima"]),
        f"  N* grows as C^{exponent['value']:.2f} ± {exponent['sd']:.2f} ({of_pilot(exponent)})",
        rate_line(pilot["learning_rate"]),
        f"  noise of a run {pilot['noise']:.2%} of its loss ({pilot['dof']} degrees of freedom)",
        "",
        "proposed ladder: layers x width, N, learning rate",
        *[line for rung in told["ladder"] for line in rung_lines(rung)],
        *rung_lines(told["held_out"], ", held out"),
        "",
        *precision_lines(told["precision"]),
        "",
        f"written: {told['proposed']}",
        f"  isoflop sweep --config={told['proposed']} --workdir=runs/ladder",
    ]
    return "\n".join(lines)


def minima_lines(minima: Sequence[Mapping[str, Any]]) -> list[str]:
    """N* of every pilot budget, or why there is none."""
    return [
        f"  {m['flops']:.3g} FLOPs: " + (m["reason"] or f"N* = {si(m['params'])}") for m in minima
    ]


def of_pilot(exponent: Mapping[str, Any]) -> str:
    """Where the exponent comes from."""
    prior = f"prior {exponent['prior']:g} ± {exponent['prior_sd']:g}"
    if exponent["pilot"] is None:
        return f"{prior} alone: one budget has no slope"
    return f"the pilot says {exponent['pilot']:.2f} ± {exponent['pilot_sd']:.2f}, {prior}"


def rate_line(rule: Mapping[str, Any]) -> str:
    """The rule of the learning rate in words."""
    low, high = rule["widths"]
    over = f"widths {low:g} to {high:g}"
    if rule["moves"]:
        told = (
            f"  learning rate {rule['middle']:.2g} (width/{rule['width']:.3g})^{rule['slope']:.2f}:"
            f" the best moves over {over}"
        )
    else:
        told = (
            f"  learning rate {rule['middle']:.2g} at every width (the best over {over} goes as "
            f"width^{rule['measured']:.2f} ± {rule['error']:.2f})"
        )
    if len(rule["by_budget"]) < 2:
        return told
    means = ", ".join(f"{rate:.2g} at {budget:.3g} FLOPs" for budget, rate in rule["by_budget"])
    return f"{told}\n    best on average: {means}; where it falls, longer runs want less still"


def rung_lines(rung: Mapping[str, Any], note: str = "") -> list[str]:
    """A budget and its sizes."""
    best = rung["params"]
    sizes = [f"{size['shape']} {si(size['params'])} {size['rate']:g}" for size in rung["sizes"]]
    expected = f"N* = {si(best['value'])} [{si(best['lo'])}, {si(best['hi'])}]"
    return [f"  {rung['flops']:.3g} FLOPs, {expected}{note}", f"    {'; '.join(sizes)}"]
