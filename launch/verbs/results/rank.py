"""isoflop rank: which configuration of a sweep is best, how sure that is, what each key does.

isoflop rank runs/lr_grid
isoflop rank runs/lr_grid --metric=bits_per_byte --top=0
isoflop rank runs/lr_grid --where="model.d_model == 64"
isoflop rank runs/quickstart --equal

Trials that share all but the seed are one configuration. Prints the configurations, best first,
and marks those that cannot be distinguished from the best; then the effect of each key and the
fitted best learning rates. Writes ranking.csv and ranking.json into the folder's report/, or into
--out. Several sweeps in one folder are ranked apart.
"""

import contextlib
import gc
import json
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.watching.runs_folder import runs_in


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("runs", None, "folder of a sweep, or of several", values)
    absl_flags.DEFINE_string("metric", "loss", "evaluation metric to rank by", values)
    flags.define_where(values)
    top = "configurations shown; 0: all"
    absl_flags.DEFINE_integer("top", 20, top, lower_bound=0, flag_values=values)
    absl_flags.DEFINE_boolean(
        "equal", False, "rank within equal compute: trials of each budget apart", values
    )
    flags.define_path("out", None, "folder of ranking.csv and .json; default: RUNS/report", values)
    flags.define_path("json", None, "write the ranking, or a list of several, to this file", values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the ranking of each sweep in the folder and writes it. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="runs")
    from launch.sweep.ranking import show, write_ranking
    from scaling.drafts import write
    from scaling.printable import printable
    from scaling.ranking.filters import keep
    from scaling.ranking.ranking import rank
    from scaling.ranking.trials import equal_budgets, read_sweeps

    with bad_input(), alive("reading the trials") as detail, uncollected():
        sweeps = keep(read_sweeps(runs_in(values.runs)), values.where)
        if values.equal:
            sweeps = [part for sweep in sweeps for part in equal_budgets(sweep)]
        if not sweeps:
            raise ValueError(f"runs={values.runs} holds no trial that has ended; nothing to rank")
        rankings: list[dict[str, Any]] = []
        for number, sweep in enumerate(sweeps, 1):
            detail(f"and ranking sweep {number} of {len(sweeps)}")
            rankings.append(rank(sweep, values.metric))
    if len(rankings) > 1:
        print(f"{len(rankings)} sweeps in {values.runs}, each ranked on its own")
    for ranking in rankings:
        print("\n" * (len(rankings) > 1) + f"{printable(ranking['sweep'])}:")
        show(ranking, values.top)
    content = rankings[0] if len(rankings) == 1 else rankings
    if values.json:
        with writing("json", values.json):
            write(to_path(values.json), json.dumps(content, indent=1, default=str) + "\n")
    for ranking in rankings:
        folder = to_path(values.out or to_path(ranking["source"]) / "report")
        if values.equal or (values.out and len(rankings) > 1):
            folder /= ranking["sweep"]
        with writing("out", folder):
            print(f"ranking: {write_ranking(ranking, folder)}")
    return DONE


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection, which would look through thousands of results time and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
