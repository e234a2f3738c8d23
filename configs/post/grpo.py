"""GRPO on a task whose answers a rule checks, from a model that is right at times.

    isoflop train --config=configs/post/grpo.py:runs/sft --workdir=runs/grpo

2 CPU cores, 43 s of their time: 97 % of held-out words spelt backwards, from 71 % (2026-11;
docs/reinforcement.md). The argument is the run to start from, and the reference of the KL.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """16 prompts with 8 responses each, one update on them."""
    config = base.get_config(objective="grpo", kind="tasks")
    config.name = "grpo"
    return on_task(config, arg)


def on_task(config: ConfigDict, start: str) -> ConfigDict:
    """What the configs of this folder with rollouts have in common."""
    config.train.init_from = start
    config.train.batch_size = 128  # responses of one update
    config.train.duration = "100 steps"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "constant"
    config.eval.sequences = 128
    config.eval.batch_size = 128
    return config
