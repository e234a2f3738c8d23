"""Unlearning of stated facts by gradient ascent, with a KL that keeps the rest (docs/probing.md).

    isoflop train --config=configs/post/unlearn.py:runs/world --workdir=runs/unlearned

2 CPU cores, 39 s of their time (2026-11): the 33 facts to be forgotten cost 4.7 nats instead of
.22, and other facts .22 instead of .21; of reviews, which it does not keep, it loses .10 nats.

The argument is the run to start from, which is also the reference that the KL holds the model to;
the tokenizer is that of the run. data.forget names what is forgotten, by default the facts of
configs/study/world.py that its world has marked, and data.corpora what is kept: the others.
"""

from ml_collections import ConfigDict

from configs import base
from configs.study.world import WORLD


def get_config(arg: str = "") -> ConfigDict:
    """A thousand steps that raise forgotten tokens to 4 nats and hold all others with a weight of
    30."""
    config = base.get_config(objective="unlearn", kind="unlearning")
    config.name = "unlearn"
    config.train.init_from = arg
    if arg:
        config.data.tokenizer = f"{arg}/tokenizer/tokenizer.json"
    config.objective.limit, config.objective.kl = 4.0, 30.0
    config.data.forget, config.data.corpora = (WORLD,), (f"{WORLD}:part=retain",)
    config.train.batch_size = 16
    config.train.duration = "1000 steps"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.0
    config.schedule.warmup = "5 %"
    return config
