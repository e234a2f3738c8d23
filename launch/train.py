"""This file is `isoflop train`: trains one model, or resumes it where it stopped.

isoflop train --config=configs/pretrain.py:tiny --workdir=runs/tiny
isoflop train --config=configs/pretrain.py:tiny --workdir=runs/wide --config.model.d_model=256
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from launch import flags, trial
from launch.errors import bad_input


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("config", None, "the config file, FILE.py or FILE.py:ARG", values)
    absl_flags.DEFINE_string("workdir", None, "folder of the run; one with a run resumes", values)
    absl_flags.mark_flags_as_required(["config", "workdir"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Exit code 0: done; 2: bad input; 42: stopped by a signal, run it again; 43: diverged."""
    values = make_flags()
    overrides = flags.parse(values, argv, __doc__)
    with bad_input():
        config = flags.load_config(values.config, overrides)
    return trial.run(config, values.workdir, overrides)
