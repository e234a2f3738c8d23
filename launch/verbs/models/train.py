"""isoflop train: trains one model, or resumes it where it stopped.

isoflop train --config=configs/pretrain.py:tiny --workdir=runs/tiny
isoflop train --config=configs/pretrain.py:tiny --workdir=runs/wide --config.model.d_model=256
isoflop train --config=configs/pretrain.py:tiny --workdir=runs/tiny --dry_run

Before it trains it prints the model's size, the tokens, FLOPs and an estimated time; --dry_run
prints only that. Ctrl-C saves a checkpoint; the same command continues from there.

On several hosts, run the same command on each: TPU pods and SLURM are detected; elsewhere add
--coordinator=HOST:PORT --processes=N --process=I (docs/scaling-up.md).
"""

import time
from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.config import config_file
from launch.errors import bad_input
from launch.files import ended
from launch.trial import distributed


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    text("config", None, "the config: FILE.py, FILE.py:ARG or FILE.json", values)
    flags.define_path("workdir", None, "run folder; an unfinished run in it resumes", values)
    absl_flags.DEFINE_boolean("dry_run", False, "print what would be trained, and stop", values)
    text("coordinator", None, "HOST:PORT of process 0 (several processes only)", values)
    several = "number of processes; 1: train alone; default: detected"
    whole("processes", None, several, lower_bound=1, flag_values=values)
    whole("process", None, "index of this process, from 0; default: detected", flag_values=values)
    whole("wait", 300, "seconds to wait for the other processes", lower_bound=1, flag_values=values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["config", "workdir"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: done; 2: bad input; 42: stopped by a signal or stalled, or another process
    did not come or is lost, run it again; 43: diverged."""
    begun, values = time.time(), make_flags()
    overrides = flags.parse(values, argv, __doc__)
    with bad_input():
        config = config_file.load_config(values.config, overrides, values.workdir)
        cluster = distributed.find(values.coordinator, values.processes, values.process)
        over = ended(to_path(values.workdir))

    if values.dry_run:
        from launch.trial import run as trial  # slow to import

        return trial.dry_run(config, values.workdir, overrides)

    if not over:  # else there is nothing to do
        flags.require_writable(to_path(values.workdir), "workdir")

    def train() -> int:
        from launch.trial import (
            run as trial,  # imports jax, which a process must not before it forks
        )

        return trial.run(config, values.workdir, overrides, begun)

    return distributed.run(cluster, train, values.wait) if cluster else train()
