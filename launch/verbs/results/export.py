"""isoflop export: writes finished runs for other people's viewers.

isoflop export runs/quickstart --to=csv
isoflop export runs/quickstart --to=wandb
isoflop export runs/quickstart --to=mlflow --out=exported --project=ladder

Each run is written with its config, its summary (result.json), its curves (metrics.jsonl) and its
samples of text. Nothing leaves this machine: wandb is offline (upload with `wandb sync`), MLflow
and trackio write local files. Exporting again writes only runs that are new or have changed, in
place of what was written before. TensorBoard needs no export: tensorboard --logdir=RUNS.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import is_remote, to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, BadInput, bad_input, writing
from launch.files import AGAIN, read_json, write_json
from launch.watching.runs_folder import runs_in

WRITTEN = "exported.json"  # in the folder of an export: key → fingerprint of each run


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, path = absl_flags.DEFINE_string, flags.define_path
    path("runs", None, "folder of a sweep, of sweeps, or of one run", values)
    text("to", None, "what to write for: csv, mlflow, trackio or wandb", values)
    path("out", None, "folder to write to; default: RUNS/TO", values)
    text("project", None, "project or experiment of the runs; default: the folder's name", values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["to"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes the runs; returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="runs")
    from launch.export import TARGETS, runs  # slow to import

    with bad_input():
        if values.to not in TARGETS:
            raise ValueError(f"to={values.to!r} is unknown; use one of {', '.join(TARGETS)}")
        root = runs_in(values.runs)
        found, waiting = runs.read(root)
        out = to_path(values.out) if values.out else root / values.to
        if is_remote(out) and values.to != "csv":
            raise ValueError(
                f"out={out} is in a bucket, and {values.to} writes to this machine only; add --out"
            )
        before = read_json(out / WRITTEN, AGAIN) or {}
    project = values.project or root.resolve().name
    now = {run.key: f"{run.fingerprint} {project}" for run in found}
    new = [run for run in found if before.get(run.key) != now[run.key]]
    last = f"all {len(found)} runs are there already"
    if new:
        with writing("out", out), alive(f"writing {len(new)} runs"):
            out.mkdir(parents=True, exist_ok=True)
            # A table of runs is written whole.
            whole = getattr(TARGETS[values.to], "WHOLE", False)
            try:
                line = TARGETS[values.to].write(found if whole else new, project, out)
            except ImportError as error:
                raise BadInput(
                    f"to={values.to} needs the library {values.to} ({error}); "
                    f"pip install -e '.[{values.to}]' adds it, and --to=csv needs none"
                ) from error
            write_json(out / WRITTEN, before | now)
        again = sum(run.key in before for run in new)
        counted = f"{len(new)} run{'s' * (len(new) != 1)} written ({again} again)"
        last = f"{counted}, {len(found) - len(new)} unchanged: {line}"
    print(last + (f"; {waiting} have not started" if waiting else ""))
    return DONE
