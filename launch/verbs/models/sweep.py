"""isoflop sweep: trains many trials, predicts the held-out one, fits the scaling law.

isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart
isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart --dry_run

After an interrupt, run the same command again: finished trials are kept, the others resume.
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, PREEMPTED, BadInput, bad_input, writing
from launch.files import write_json
from launch.law import fitting
from launch.runners import RUNNERS
from launch.runners.tasks import Cluster
from launch.search.asker import Asker, plan
from launch.sweep.dry_run import dry_run
from launch.sweep.execution import run_sweep, summary
from launch.sweep.expand import ASSUMED_FLOPS, Plan
from launch.sweep.machine import machine
from launch.sweep.rungs import Rungs, require_comparable_axes
from launch.sweep.search import FLAGS, SEARCHES
from launch.sweep.static.parts import parse_part, part_of
from launch.sweep.stopping import METHODS, Stopping, stopping
from launch.watching.runs_folder import runs_in

MOST_BESIDE_A_LAW = 5  # configurations shown of a ladder, which is trained for its law


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, boolean = absl_flags.DEFINE_string, absl_flags.DEFINE_boolean
    text("config", None, "the sweep: FILE.py, FILE.py:ARG or FILE.json", values)
    flags.define_path(
        "workdir", None, "folder of the sweep: one folder for each trial, report/", values
    )
    flags.define_path("json", None, "write the plan and the results to this file", values)
    text("on", "local", f"what runs the trials: {', '.join(RUNNERS)}", values)
    _define_cluster(values)
    absl_flags.DEFINE_integer(
        "workers",
        0,
        "trials at a time; 0: one per core or device",
        lower_bound=0,
        flag_values=values,
    )
    text(
        "population",
        "auto",
        "stack trials that differ only in numbers in one program (vmap): auto (on accelerators "
        "only), off, or N (at most N per program; slower on CPUs)",
        values,
    )
    text("sort", "", "order of the live table: loss, a varied key, …; -KEY: descending", values)
    absl_flags.DEFINE_integer(
        "seeds",
        1,
        "seeds of each trial that sets no seed: the config's, +1, +2, …",
        lower_bound=1,
        flag_values=values,
    )
    text("stop", "", f"stop bad trials early: {', '.join(METHODS)}; --rungs says when", values)
    text(
        "rungs",
        "",
        "where --stop compares trials, such as '1e6 tokens,3e6 tokens'; '': the shares --keep² and "
        "--keep of their length",
        values,
    )
    text("keep", "", "share of the trials that --stop lets go on at a rung; '': 1/3", values)
    text("search", None, f"method of the config's get_search: {', '.join(SEARCHES)}", values)
    absl_flags.DEFINE_integer(
        "trials", None, "configurations that the search asks for", lower_bound=1, flag_values=values
    )
    text("budget", None, 'of the whole search: "1e15 flops", "2e8 tokens" or "3 hours"', values)
    text(
        "part",
        "",
        "train only this share of the fitted trials, such as 3/16, for machines that share "
        "--workdir and no Ray; the same command without --part then predicts and trains the "
        "held-out trials and fits",
        values,
    )
    boolean(
        "dry_run",
        False,
        "print the trials with their cost, and stop; --json lists all their overrides",
        values,
    )
    boolean("open", False, "serve a live page of the trials on this machine; open it", values)
    boolean("fit", True, "fit a scaling law at the end", values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["config", "workdir"], values)
    return values


def _define_cluster(values: absl_flags.FlagValues) -> None:
    """The flags of --on=ray."""
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    text("address", "", "cluster of --on=ray: auto, HOST:6379, ray://HOST:10001; '': here", values)
    whole("cores", 0, "CPU cores of a trial; 0: a machine's, divided", 0, flag_values=values)
    whole("gpus", 0, "GPUs of a trial on a cluster", 0, flag_values=values)
    text("slice", "", "TPU slice of a trial on a cluster, such as v5e-16", values)
    whole("slices", 1, "slices of a trial", 1, flag_values=values)
    text("platform", "", "of the trials on a cluster: cpu, gpu, tpu; '': what it has now", values)
    wait = "wait for machines that are to come, where none could run a trial"
    absl_flags.DEFINE_boolean("wait_for_nodes", False, wait, values)


def main(argv: Sequence[str]) -> int:
    """Exit code 0: every trial ended; 1: some failed; 42: interrupted, run it again."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    workdir = to_path(values.workdir)
    with bad_input():
        cluster = Cluster(**{one.name: values[one.name].value for one in fields(Cluster)})
        where = machine(values.on, values.workers, values.population, cluster)
        rule = stopping(values.stop, values.rungs, values.keep)
        if rule and values.population not in ("auto", "off"):
            raise ValueError(
                f"population={values.population} trains trials together to their end, but "
                f"stop={values.stop} ends them one by one; drop one of the two"
            )
        given = {key: values[flag].value for key, flag in FLAGS.items() if values[flag].present}
        sweep, asker = plan(
            values.config,
            overrides,
            workdir,
            values.seeds,
            given,
            ASSUMED_FLOPS[where.resources.platform],
        )
        where.require_all_used(sweep.trials)
        if rule and rule.method == "successive_halving" and asker and asker.lazy:
            raise ValueError(
                f"stop={values.stop} needs all trials at the start, and a search by "
                f"{asker.search.method} asks for them one by one; use --stop=asha"
            )
        if rule and asker and asker.lazy:
            require_comparable_axes(asker.search.axes, rule)
        whole, sweep = sweep, _shared(sweep, values.part, rule, asker)
        known = [*sweep.trials, *(asker.pending if asker else ())]
        rungs = Rungs(known, rule, workdir) if rule else None
    if values.dry_run:
        dry_run(sweep, workdir, where, asker)
        if rungs:
            print(rungs.outlook())
        code = DONE
    else:
        flags.require_writable(workdir, "workdir")
        with _live_page(workdir) if values.open else contextlib.nullcontext():
            code = run_sweep(sweep, workdir, where, asker, rungs, values.sort, whole)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), summary(sweep, workdir, code, asker))
    if code != PREEMPTED and not values.dry_run and not values.part:
        _conclude(workdir, values.fit)
    return code


def _shared(sweep: Plan, text: str, rule: Stopping | None, asker: Asker | None) -> Plan:
    """The part of the sweep that --part=`text` names; all of it if `text` is ''. ValueError where
    trials depend on the results of others."""
    if not text:
        return sweep
    part = parse_part(text)
    if rule or asker:
        flag = f"stop={rule.method}" if rule else f"search={asker.search.method}"
        raise ValueError(
            f"part={part} trains its trials without the results of the others, which --{flag} "
            "compares; drop one of the two"
        )
    kept = part_of(sweep, part)
    fitted = sum(not planned.holdout for planned in sweep.trials)
    print(f"part {part}: {len(kept.trials)} of {fitted} fitted trials")
    return kept


def _live_page(workdir: Path) -> contextlib.AbstractContextManager:
    """Serves a page that follows the trials, while entered."""
    from launch.sweep.serving import serving

    return serving(workdir)


def _conclude(workdir: Path, fit: bool) -> None:
    """Fits a law to the trials if `fit`, shows their ranking, and writes the page."""
    from launch.sweep.ranking import MOST_ROWS, show, write_ranking
    from launch.vectors.sweep_map import write_words
    from scaling.ranking.ranking import rank
    from scaling.ranking.trials import read_sweeps
    from scaling.report.explorer.sweep_page import write_sweep_page

    law = fit and _fit(workdir)
    with alive("ranking the trials"), bad_input():
        sweep = read_sweeps(runs_in(workdir))[0]
        ranking = rank(sweep)
    print()
    show(ranking, MOST_BESIDE_A_LAW if law else MOST_ROWS, effects=not law)
    table = write_ranking(ranking, workdir / "report")
    with alive("writing the page"), bad_input():
        write_words(workdir, ranking, workdir / "report")
        page = write_sweep_page(sweep, ranking)
    print(f"ranking: {table}")
    print(f"report: {page}")


def _fit(workdir: Path) -> bool:
    """Whether the results support a law, which is printed and written, or the reason is printed."""
    try:
        fitting.fit_runs(workdir, workdir / "report")
    except BadInput as error:
        print(f"No scaling law from these trials: {error}", file=sys.stderr)
        return False
    return True
