"""Unlearning of stated facts by gradient ascent, with a KL that keeps the rest (docs/probing.md).

    isoflop train --config=configs/post/unlearn.py:runs/world --workdir=runs/unlearned

Unmeasured.

The argument is the run to start from, which is also the reference that the KL holds the model to.
The tokenizer is that of the run. data.forget names what is forgotten and data.corpora what is kept.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """Three hundred steps at a third of the usual learning rate."""
    config = base.get_config(objective="unlearn", kind="unlearning")
    config.name = "unlearn"
    config.train.init_from = arg
    if arg:
        config.data.tokenizer = f"{arg}/tokenizer/tokenizer.json"
    config.train.duration = "300 steps"
    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.0
    config.schedule.warmup = "5 %"
    return config
