"""This file is `isoflop train`: trains one model, or resumes it where it stopped.

isoflop train --config=configs/pretrain.py:tiny --workdir=runs/tiny
isoflop train --config=configs/pretrain.py:tiny --workdir=runs/wide --config.model.d_model=256

On several hosts, the same command on each: TPU pods and SLURM are found; elsewhere add
--coordinator=HOST:PORT --processes=N --process=I (docs/scaling-up.md).
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from launch import flags
from launch.errors import bad_input
from launch.trial import distributed


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("config", None, "the config file, FILE.py or FILE.py:ARG", values)
    absl_flags.DEFINE_string("workdir", None, "folder of the run; one with a run resumes", values)
    absl_flags.DEFINE_string(
        "coordinator", None, "HOST:PORT where process 0 listens, if there are several", values
    )
    absl_flags.DEFINE_integer(
        "processes",
        None,
        "how many train together; 1: this one alone",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.DEFINE_integer(
        "process", None, "the number of this process, from 0", flag_values=values
    )
    absl_flags.DEFINE_integer(
        "wait",
        300,
        "seconds until all processes must have come",
        lower_bound=1,
        flag_values=values,
    )
    absl_flags.mark_flags_as_required(["config", "workdir"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: done; 2: bad input; 42: stopped by a signal, run it again; 43: diverged."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    with bad_input():
        config = flags.load_config(values.config, overrides)
        cluster = distributed.find(values.coordinator, values.processes, values.process)

    def train() -> int:
        from launch.trial import (
            run as trial,  # imports jax, which a process must not before it forks
        )

        return trial.run(config, values.workdir, overrides)

    return distributed.run(cluster, train, values.wait) if cluster else train()
