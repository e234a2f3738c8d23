"""isoflop report: writes the page of a sweep, or serves it while the trials run.

isoflop report runs/lr_grid
isoflop report runs/lr_grid --watch

The page is one file, report/index.html in the sweep's folder, which works offline: the best
configuration and how sure that is, a table of all trials, what each key does, the curves and, if
report/law.json holds one, the scaling law. It may be written while the sweep runs. --watch serves
it on this machine instead, where it changes as the trials do, until Ctrl-C; then it is written.
Several sweeps in one folder have a page each.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.watching.runs_folder import runs_in

POLL = 0.5  # seconds


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    boolean = absl_flags.DEFINE_boolean
    flags.define_path("runs", None, "folder of a sweep, or of several", values)
    absl_flags.DEFINE_string("metric", "loss", "evaluation metric to rank by", values)
    flags.define_path("out", None, "folder of the page; default: report/ in the sweep's", values)
    boolean("watch", False, "serve the page and keep it up to date until Ctrl-C", values)
    boolean("browser", True, "with --watch: open the page in a browser, if there is one", values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes or serves the page. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="runs")
    folder = runs_in(values.runs)
    # Imported after parsing, so that --help answers at once.
    from scaling.ranking.trials import is_run, read_sweeps

    with bad_input():
        if is_run(folder):
            sweep = f"give the folder of its sweep: {folder.resolve().parent}"
            raise ValueError(f"runs={folder} is one run; {sweep}")
        sweeps = read_sweeps(folder)
        if values.watch and len(sweeps) > 1:
            names = ", ".join(str(sweep.folder) for sweep in sweeps)
            raise ValueError(f"runs={folder} holds {len(sweeps)} sweeps; watch one: {names}")
    if values.watch:
        _watch(sweeps[0].folder, values.metric, values.browser)
        with bad_input():
            sweeps = read_sweeps(runs_in(str(sweeps[0].folder)))
    if len(sweeps) > 1:
        print(f"{len(sweeps)} sweeps in {folder}, a page each")
    for sweep in sweeps:
        out = to_path(values.out) if values.out else None
        _write(sweep, values.metric, out / sweep.name if out and len(sweeps) > 1 else out)
    return DONE


def _write(sweep, metric: str, out: Path | None) -> None:
    from launch.vectors.sweep_map import write_words
    from scaling.ranking.ranking import rank
    from scaling.report.explorer.sweep_page import write_sweep_page
    from scaling.report.frame import missing_package

    with alive("ranking the trials"), bad_input():
        ranking = rank(sweep, metric)
    folder = out or sweep.folder / "report"
    with alive("writing the page"), writing("out", folder):
        write_words(sweep.folder, ranking, folder)
        path = write_sweep_page(sweep, ranking, out)
    if name := missing_package():
        line = f"{name} is not installed; pip install -e '.[report]' adds them"
        print(f"the page lacks some charts: {line}", file=sys.stderr)
    print(f"report: {path}")


def _watch(folder: Path, metric: str, browser: bool) -> None:
    """Serves the page until Ctrl-C."""
    from launch.sweep.serving import Watched, serving

    with alive("reading the trials"), bad_input():
        Watched(folder, metric).look()  # refuses what cannot be shown before anything is served
    with serving(folder, metric, browser) as address:
        try:
            while address:
                time.sleep(POLL)
        except KeyboardInterrupt:
            print("no longer served", file=sys.stderr)
