"""A reward model, from a model that was fine-tuned on demonstrations.

    isoflop train --config=configs/post/reward.py:runs/sft --workdir=runs/reward

A tiny model that adds numbers (docs/preferences.md, 2026-11): 68 % of the held-out pairs in the
right order after three epochs of 1,800 comparisons.

The argument is the run, or the folder of Hugging Face weights, to start from; without one a model
of 0.8M parameters starts from nothing. Its head of one output is fresh. The comparisons are made up
from a task; give yours with --config.data.corpora=FILE.jsonl (docs/preferences.md).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """One epoch: reward models overfit their comparisons soon (Ouyang et al. 2022, appendix C)."""
    config = base.get_config(objective="reward", kind="preferences")
    config.name = "reward"
    config.train.init_from = arg
    config.train.duration = "1 epochs"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.0
    config.schedule.warmup = "5 %"
    return config
