"""isoflop pilot: chooses a ladder's sizes and learning rates from a few cheap runs.

isoflop pilot --config=configs/quickstart.py --workdir=runs/pilot [--dry_run]
isoflop pilot --law=law.json --budgets=1e12,3e12,1e13 --sizes=5

Trains several sizes at a few learning rates with a small share of a ladder's smallest budget, and
proposes the ladder: sizes around the expected minimum of every budget, the learning rate, and how
precise the exponents will be. Writes WORKDIR/proposed.json, which isoflop sweep takes. With --law
it trains nothing and prints the precision of a ladder around the optima of that law.
"""

import json
from collections.abc import Mapping, Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.pilot.designs import FEWEST_BUDGETS, designs, held_out_budget, numbers
from launch.pilot.summary import law_summary


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    own = {"flag_values": values}
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    real, boolean = absl_flags.DEFINE_float, absl_flags.DEFINE_boolean
    path = flags.define_path
    text("config", None, "base of all trials: FILE.py, FILE.py:ARG or FILE.json", **own)
    path("workdir", None, "folder of the pilot: proposed.json, pilot.json, trials/", **own)
    path("law", None, "law.json: print the precision of a ladder, train nothing", **own)
    text("budgets", None, "the ladder's FLOPs, 3e11,9e11,2.7e12 (default: the config's)", **own)
    text("share", "0.1,0.3", "pilot budgets as shares of the ladder's smallest", **own)
    text("rates", "0.5,1,2", "pilot learning rates as multiples of the config's", **own)
    flags.define_amount("held_out", None, "FLOPs of the held-out run (default: the config's, or 3 times the largest)", **own)  # fmt: skip  # noqa: E501
    whole("sizes", 5, "sizes of each budget, in the ladder and the pilot", lower_bound=5, **own)
    whole("seeds", 1, "runs of every size in the ladder", lower_bound=1, **own)
    real("span", 3.0, "sizes reach from N*/span to N*·span", **own)
    real("noise", None, "spread of a run's log-loss (default: the law's or the pilot's)", **own)
    text("on", "local", "what runs the trials, as in isoflop sweep", **own)
    whole("workers", 0, "trials at a time; 0: one per core or device", lower_bound=0, **own)
    whole("seed", 0, "seed of the simulation", lower_bound=0, **own)
    boolean("dry_run", False, "print the pilot's trials and stop", **own)
    path("json", None, "write all numbers to this file", **own)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: proposed; 1: some trials failed; 42: interrupted, run it again."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    with bad_input():
        refuse_flags(values, overrides)
    if values.law:
        return precision_of_law(values)
    # Training takes seconds to import, and the precision of a law does not need it.
    from launch.pilot import rounds

    with bad_input():
        plan = rounds.make_plan(values, overrides)
    return rounds.print_first_round(plan) if values.dry_run else rounds.run(plan)


def refuse_flags(values: absl_flags.FlagValues, overrides: Mapping[str, str]) -> None:
    """ValueError where flags are missing or exclude each other."""
    if not values.span > 1:
        raise ValueError(f"span={values.span:g} must be above 1; use 3")
    if values.noise is not None and not 0 < values.noise < 1:
        raise ValueError(f"noise={values.noise:g} is not a spread of log-loss; use 0.004, say")
    if values.law:
        for key in ("config", "workdir"):
            if values[key].value or overrides:
                raise ValueError(f"law={values.law} runs nothing; drop --{key}, or --law")
        if not values.budgets:
            raise ValueError("--budgets is not given; write --budgets=1e12,3e12,1e13")
    elif not (values.config and values.workdir):
        missing = "workdir" if values.config else "config"
        raise ValueError(f"--{missing} is not given; write --config=FILE.py --workdir=FOLDER")


def precision_of_law(values: absl_flags.FlagValues) -> int:
    """Prints the precision of a ladder around the optima of a law.json."""
    from scaling.design.planning import read_law
    from scaling.design.precision import Design, expected_precision, ladder
    from scaling.drafts import write

    with bad_input():
        law = read_law(to_path(values.law))
        budgets = numbers("budgets", values.budgets, FEWEST_BUDGETS)
        held_out = held_out_budget(values.held_out, budgets)
        noise = law.spread if values.noise is None else values.noise

        def make(flops: list[float], extra: int, span_factor: float) -> Design:
            sizes, span = values.sizes + extra, values.span * span_factor
            return ladder(law.theta[0], flops, sizes, span, held_out)

        variations = designs(make, budgets, values.seeds)
        with alive("simulating"):
            rows = expected_precision(law.theta, noise, law.dof, variations, values.seed)
    about = {"law": law.about, "budgets": budgets, "held_out": held_out, "span": values.span}
    about |= {"sizes": values.sizes, "seeds": values.seeds, "precision": rows}
    if values.json:
        with writing("json", values.json):
            write(to_path(values.json), json.dumps(about, indent=1) + "\n")
    print(law_summary(about))
    return DONE
