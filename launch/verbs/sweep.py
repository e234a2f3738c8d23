"""isoflop sweep: trains many trials, predicts the held-out one, fits the scaling law.

isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart
isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart --dry_run

After an interrupt, run the same command again: finished trials are kept, the others resume.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from launch import flags
from launch.alive import alive
from launch.errors import DONE, PREEMPTED, BadInput, bad_input, writing
from launch.files import write_json
from launch.law import fitting
from launch.runners import RUNNERS
from launch.sweep import expand
from launch.sweep.dry_run import dry_run
from launch.sweep.execution import run_sweep, summary
from launch.sweep.machine import machine


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
    boolean(
        "dry_run",
        False,
        "print the trials with their cost, and stop; --json lists all their overrides",
        values,
    )
    boolean("open", False, "serve a live page of the trials on this machine; open it", values)
    boolean("fit", True, "fit the scaling law and write the report at the end", values)
    absl_flags.mark_flags_as_required(["config", "workdir"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: every trial ended; 1: some failed; 42: interrupted, run it again."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    workdir = Path(values.workdir)
    with bad_input():
        where = machine(values.on, values.workers, values.population)
        sweep = expand.plan(values.config, overrides, workdir)
    if values.dry_run:
        dry_run(sweep, workdir, where)
        code = DONE
    else:
        with _live_page(workdir) if values.open else contextlib.nullcontext():
            code = run_sweep(sweep, workdir, where)
    if values.json:
        with writing("json", values.json):
            write_json(Path(values.json), summary(sweep, workdir, code))
    if code != PREEMPTED and values.fit and not values.dry_run:
        _fit(workdir)
    if code != PREEMPTED and not values.dry_run:
        _page(workdir)
    return code


def _live_page(workdir: Path) -> contextlib.AbstractContextManager:
    """Serves a page that follows the trials, while entered."""
    from launch.sweep.serving import serving

    return serving(workdir)


def _page(workdir: Path) -> None:
    """Writes the page of the sweep, whether or not there is a law."""
    from scaling.ranking.ranking import rank
    from scaling.ranking.trials import read_sweeps
    from scaling.report.explorer.sweep_page import write_sweep_page

    with alive("writing the page"), bad_input():
        sweep = read_sweeps(workdir)[0]
        print(f"page: {write_sweep_page(sweep, rank(sweep))}")


def _fit(workdir: Path) -> None:
    """Fits the results and writes the report, or prints why the trials do not support a fit."""
    try:
        fitting.fit_runs(workdir, workdir / "report")
    except BadInput as error:
        print(f"No scaling law from these trials: {error}", file=sys.stderr)
