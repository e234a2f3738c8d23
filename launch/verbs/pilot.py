"""This file is the verb `pilot`: cheap runs that place a ladder, and how precise it will be."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch.errors import DONE, bad_input, writing
from launch.flags import parse

DOC = """isoflop pilot --config=configs/quickstart.py --workdir=runs/pilot [--dry_run]
isoflop pilot --law=law.json --budgets=1e12,3e12,1e13 --sizes=5

Trains several sizes at a few learning rates with a small share of a ladder's smallest budget, and
proposes the ladder from them: sizes around the expected minimum of every budget, the learning rate,
and how precise the exponents will be. Writes WORKDIR/proposed.py, which isoflop sweep takes. With
--law it runs nothing and tells the precision of a ladder around that law's optima."""

FEWEST_BUDGETS = 3
HELD_OUT = 3.0  # times the largest budget


def flag_values() -> flags.FlagValues:
    """The flags of this verb."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    text = flags.DEFINE_string
    text("config", None, "config file, FILE.py or FILE.py:ARG: the base of all trials", **own)
    text("workdir", None, "folder of the pilot: pilot.py, proposed.py, trials/", **own)
    text("law", None, "law.json: tell a ladder's precision and run nothing", **own)
    text("budgets", None, "the ladder's, in FLOPs: 3e11,9e11,2.7e12; else the config's", **own)
    text("share", "0.1,0.3", "pilot budgets, as shares of the ladder's smallest", **own)
    text("rates", "0.5,1,2", "pilot learning rates, times the config's", **own)
    flags.DEFINE_float("held_out", None, "its budget; else the config's, or 3 x the largest", **own)
    flags.DEFINE_integer("sizes", 5, "a budget, of the ladder and the pilot", lower_bound=5, **own)
    flags.DEFINE_integer("seeds", 1, "runs of every size in the ladder", lower_bound=1, **own)
    flags.DEFINE_float("span", 3.0, "sizes reach from N*/span to N* span", **own)
    flags.DEFINE_float("noise", None, "of a run's log-loss; else the law's or the pilot's", **own)
    flags.DEFINE_integer("workers", 0, "trials at a time; 0: one a core", lower_bound=0, **own)
    flags.DEFINE_integer("seed", 0, "of the simulation", lower_bound=0, **own)
    flags.DEFINE_boolean("dry_run", False, "print the pilot's trials and stop", **own)
    text("json", None, "file for all numbers", **own)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: proposed; 1: some trials failed; 42: interrupted, run it again."""
    values = flag_values()
    overrides = parse(values, argv, DOC)
    with bad_input():
        refuse_flags(values, overrides)
    if values.law:
        return precision_of_law(values)
    from launch.pilot import (
        rounds as study,  # what trains takes seconds to import; a law's precision does not
    )

    with bad_input():
        prepared = study.prepared(values, overrides)
    return study.dry_run(prepared) if values.dry_run else study.run(prepared)


def refuse_flags(values: flags.FlagValues, overrides: Mapping[str, str]) -> None:
    """ValueError where flags are missing or exclude each other."""
    if not values.span > 1:
        raise ValueError(f"span={values.span:g} must be above 1; use 3")
    if values.noise is not None and not 0 < values.noise < 1:
        raise ValueError(f"noise={values.noise:g} is no spread of log-loss; use 0.004, say")
    if values.law:
        for key in ("config", "workdir"):
            if values[key].value or overrides:
                raise ValueError(f"law={values.law} runs nothing; drop --{key}, or --law")
        if not values.budgets:
            raise ValueError("budgets is not given; write --budgets=1e12,3e12,1e13")
    elif not (values.config and values.workdir):
        missing = "workdir" if values.config else "config"
        raise ValueError(f"{missing} is not given; write --config=FILE.py --workdir=FOLDER")


def numbers(name: str, text: str, fewest: int = 1) -> list[float]:
    """'3e11,9e11' as rising positive numbers."""
    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"{name}={text} is no list of numbers; write 1e12,3e12,1e13") from None
    if not all(0 < value < float("inf") for value in found):
        raise ValueError(f"{name}={text} must be positive and finite")
    if len(found) < fewest:
        raise ValueError(f"{name}={text} has {len(found)} values; give {fewest} or more")
    return found


def beyond(held_out: float | None, budgets: Sequence[float]) -> float:
    """The held-out budget. ValueError where it is not above the fitted ones."""
    if held_out is not None and not held_out > budgets[-1]:
        raise ValueError(
            f"held_out={held_out:g} is not above the largest budget, {budgets[-1]:g}; use "
            f"{HELD_OUT * budgets[-1]:g}"
        )
    return held_out or HELD_OUT * budgets[-1]


def variations(
    budgets: Sequence[float], sizes: int
) -> dict[str, tuple[list[float], int, float, int]]:
    """What else a ladder might be: budgets, sizes, times the span, times the seeds."""
    ratio = (budgets[-1] / budgets[0]) ** (1 / (len(budgets) - 1))
    same = list(budgets)
    return {
        "as proposed": (same, sizes, 1.0, 1),
        "two more sizes": (same, sizes + 2, 1.0, 1),
        "twice the span": (same, sizes, 2.0, 1),
        "twice the seeds": (same, sizes, 1.0, 2),
        "a budget below": ([budgets[0] / ratio, *same], sizes, 1.0, 1),
        "a budget above": ([*same, budgets[-1] * ratio], sizes, 1.0, 1),
    }


def designs(
    make: Callable[[list[float], int, float], Any],
    budgets: Sequence[float],
    sizes: int,
    seeds: int,
) -> dict[str, Any]:
    """The Design of every variation for which there are shapes, `make(budgets, sizes, wider)`."""
    found = {}
    for name, (own, count, wider, times) in variations(budgets, sizes).items():
        try:
            found[name] = make(own, count, wider).repeated(seeds * times)
        except ValueError:
            if name == "as proposed":
                raise
    return found


def precision_of_law(values: flags.FlagValues) -> int:
    """The precision of a ladder around the optima of a law.json."""
    from scaling.design.planning import read_law
    from scaling.design.precision import Design, compared, ladder
    from scaling.drafts import write

    with bad_input():
        law = read_law(values.law)
        budgets = numbers("budgets", values.budgets, FEWEST_BUDGETS)
        held_out = beyond(values.held_out, budgets)
        noise = law.spread if values.noise is None else values.noise

        def make(own: list[float], sizes: int, wider: float) -> Design:
            return ladder(law.theta[0], own, sizes, wider * values.span, held_out)

        wanted = designs(make, budgets, values.sizes, values.seeds)
        rows = compared(law.theta, noise, law.dof, wanted, values.seed)
    told = {"law": law.about, "budgets": budgets, "held_out": held_out, "span": values.span}
    told |= {"sizes": values.sizes, "seeds": values.seeds, "precision": rows}
    if values.json:
        with writing("json", values.json):
            write(Path(values.json), json.dumps(told, indent=1) + "\n")
    print(law_summary(told))
    return DONE


def law_summary(told: Mapping[str, Any]) -> str:
    """What the terminal shows of a law's ladder."""
    law = told["law"]
    budgets = ", ".join(f"{c:.3g}" for c in told["budgets"])
    seeds = f", {told['seeds']} seeds" if told["seeds"] > 1 else ""
    head = [
        f"a ladder of {budgets} FLOPs, {told['sizes']} sizes from N*/{told['span']:g} to "
        f"{told['span']:g} N*{seeds}; held out at {told['held_out']:.3g}",
        f"on {law['law']} of {law['n']} points ({law['source']}), noise of a run "
        f"{told['precision'][0]['noise']:.2%} of its loss",
        "",
    ]
    return "\n".join([*head, *precision_lines(told["precision"])])


# name in scaling.precision.MEASURED -> title, form
COLUMNS = {
    "a": ("a", "{:.3f}"),
    "a_isoflop": ("a, parabolas", "{:.3f}"),
    "alpha": ("alpha", "{:.3f}"),
    "beta": ("beta", "{:.3f}"),
    "E": ("E", "{:.3f}"),
    "prediction": ("held-out", "{:.2%}"),
}


def precision_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a design: its cost and the width of the intervals."""
    titles = "".join(f"{title:>14}" for title, _ in COLUMNS.values())
    lines = [
        "expected width of the 90 % intervals, and [least, most] over the laws that fit as well",
        f"  {'ladder':<16}{'runs':>5}{'FLOPs':>9}{titles}",
    ]
    for row in rows:
        values = "".join(f"{form(row, name):>14}" for name in COLUMNS)
        lines.append(f"  {row['design']:<16}{row['runs']:>5}{row['flops']:>9.2g}{values}")
    first = rows[0]
    ranges = "".join(f"{spread(first, name):>14}" for name in COLUMNS)
    if ranges.strip():
        lines.insert(3, f"  {'':<16}{'':>5}{'':>9}{ranges}")
    if first["no_law"] > 0.01:
        lines.append(f"  {first['no_law']:.0%} of such ladders would find no law at all")
    if (first["unbracketed"] or 0) > 0.01:
        share = f"{first['unbracketed']:.0%}"
        lines.append(f"  {share} of the budgets would have their lowest loss at the edge of sizes")
    return lines


def form(row: Mapping[str, Any], name: str) -> str:
    """One width."""
    value = row["widths"][name]["value"]
    return "—" if value is None else COLUMNS[name][1].format(value)


def spread(row: Mapping[str, Any], name: str) -> str:
    """'[.02, .14]'."""
    width = row["widths"][name]
    if width["lo"] is None:
        return ""
    short = COLUMNS[name][1].replace(".3f", ".2f").replace(".2%", ".1%")
    return f"[{short.format(width['lo'])},{short.format(width['hi'])}]"
