"""What the terminal shows of a pilot: its findings, the proposed ladder, the expected precision."""

from collections.abc import Mapping, Sequence
from typing import Any

from launch.amounts import amount, flops, with_interval
from scaling.laws.law import symbols
from scaling.report.number_text import three_digits


def summary(about: Mapping[str, Any]) -> str:
    """The text that describes a pilot; `about` is its pilot.json."""
    pilot, exponent = about["pilot"], about["pilot"]["exponent"]
    budgets = ", ".join(flops(m["flops"]) for m in pilot["minima"])
    lines = [
        f"pilot: {pilot['runs']} runs at {budgets} FLOPs, {about['share']:.1%} of the ladder's "
        "compute",
        *minima_lines(pilot["minima"]),
        f"  N* grows as C^{exponent['value']:.2f} ± {exponent['sd']:.2f} ({sources(exponent)})",
        rate_line(pilot["learning_rate"]),
        f"  noise of a run {pilot['noise']:.2%} of its loss ({pilot['dof']} degrees of freedom)",
        "",
        "proposed ladder: layers x width, N, learning rate",
        *[line for rung in about["ladder"] for line in rung_lines(rung)],
        *rung_lines(about["held_out"], ", held out"),
        "",
        *precision_lines(about["precision"]),
        "",
        f"written: {about['proposed']}",
        f"  isoflop sweep --config={about['proposed']} --workdir=runs/ladder",
    ]
    return "\n".join(lines)


def minima_lines(minima: Sequence[Mapping[str, Any]]) -> list[str]:
    """N* at every budget of the pilot, or the reason why it has no N*."""
    return [
        f"  {flops(m['flops'])} FLOPs: " + (m["reason"] or f"N* = {amount(m['params'])}")
        for m in minima
    ]


def sources(exponent: Mapping[str, Any]) -> str:
    """The two exponents whose average the ladder uses."""
    prior = f"prior {exponent['prior']:g} ± {exponent['prior_sd']:g}"
    if exponent["pilot"] is None:
        return f"{prior} alone: one budget has no slope"
    return f"the pilot's is {exponent['pilot']:.2f} ± {exponent['pilot_sd']:.2f}, {prior}"


def rate_line(rule: Mapping[str, Any]) -> str:
    """The rule of the learning rate in words."""
    low, high = rule["widths"]
    rate = f"  learning rate {three_digits(rule['middle'])}"
    over = f"widths {low:g} to {high:g}"
    if rule["moves"]:
        line = (
            f"{rate} (width/{rule['width']:.3g})^{rule['slope']:.2f}: the best changes over {over}"
        )
    else:
        line = (
            f"{rate} at every width (the best over {over} goes as width^"
            f"{rule['measured']:.2f} ± {rule['error']:.2f})"
        )
    if len(rule["by_budget"]) < 2:
        return line
    means = ", ".join(
        f"{three_digits(r)} at {flops(budget)} FLOPs" for budget, r in rule["by_budget"]
    )
    return f"{line}\n    best on average: {means}; where it falls, use less for longer runs"


def rung_lines(rung: Mapping[str, Any], note: str = "") -> list[str]:
    """One budget and its sizes."""
    sizes = [
        f"{size['shape']} {amount(size['params'])} {three_digits(size['rate'])}"
        for size in rung["sizes"]
    ]
    expected = f"N* = {with_interval(rung['params'], amount)}"
    return [f"  {flops(rung['flops'])} FLOPs, {expected}{note}", f"    {'; '.join(sizes)}"]


def law_summary(about: Mapping[str, Any]) -> str:
    """The text that describes the precision of a ladder around the optima of a law."""
    law = about["law"]
    budgets = ", ".join(flops(c) for c in about["budgets"])
    seeds = f", {about['seeds']} seeds" if about["seeds"] > 1 else ""
    head = [
        f"a ladder of {budgets} FLOPs, {about['sizes']} sizes from N*/{about['span']:g} to "
        f"{about['span']:g} N*{seeds}; held out at {flops(about['held_out'])}",
        f"on {symbols(law['law'])} of {law['n']} points ({law['source']}), noise of a run "
        f"{about['precision'][0]['noise']:.2%} of its loss",
        "",
    ]
    return "\n".join([*head, *precision_lines(about["precision"])])


# Name in scaling.design.precision.MEASURED -> title, format.
COLUMNS = {
    "a": ("a", "{:.3f}"),
    "a_isoflop": ("a, parabolas", "{:.3f}"),
    "alpha": ("α", "{:.3f}"),
    "beta": ("β", "{:.3f}"),
    "E": ("E (nats)", "{:.3f}"),
    "prediction": ("held-out", "{:.2%}"),
}


def precision_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each design: its cost and the widths of the intervals."""
    titles = "".join(f"{title:>14}" for title, _ in COLUMNS.values())
    lines = [
        "expected width of the 90 % intervals, and [least, most] over the laws that fit as well",
        f"  {'ladder':<16}{'runs':>5}{'FLOPs':>9}{titles}",
    ]
    for row in rows:
        values = "".join(f"{_width(row, name):>14}" for name in COLUMNS)
        lines.append(f"  {row['design']:<16}{row['runs']:>5}{flops(row['flops']):>9}{values}")
    first = rows[0]
    ranges = "".join(f"{_width_range(first, name):>14}" for name in COLUMNS)
    if ranges.strip():
        lines.insert(3, f"  {'':<16}{'':>5}{'':>9}{ranges}")
    if first["no_law"] > 0.01:
        lines.append(f"  {first['no_law']:.0%} of such ladders would find no law at all")
    if (first["unbracketed"] or 0) > 0.01:
        share = f"{first['unbracketed']:.0%}"
        lines.append(f"  {share} of the budgets would have their lowest loss at the edge of sizes")
    return lines


def _width(row: Mapping[str, Any], name: str) -> str:
    """The width of one interval; a dash if it is unknown."""
    value = row["widths"][name]["value"]
    return "—" if value is None else COLUMNS[name][1].format(value)


def _width_range(row: Mapping[str, Any], name: str) -> str:
    """The range of a width, such as '[.02,.14]'; '' if it is unknown."""
    width = row["widths"][name]
    if width["lo"] is None:
        return ""
    short = COLUMNS[name][1].replace(".3f", ".2f").replace(".2%", ".1%")
    return f"[{short.format(width['lo'])},{short.format(width['hi'])}]"
