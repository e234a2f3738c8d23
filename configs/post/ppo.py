"""PPO on a task whose answers a rule checks, from a model that is right at times.

    isoflop train --config=configs/post/ppo.py:runs/sft --workdir=runs/ppo

2 CPU cores, 54 s of their time: all of 128 held-out words spelt backwards, from 71 % (2026-11;
docs/reinforcement.md). The argument is the run to start from, and the reference of the KL; its
trunk gets a value head.
"""

from ml_collections import ConfigDict

from configs import base
from configs.post.grpo import on_task


def get_config(arg: str = "") -> ConfigDict:
    """Rollouts of 128 responses, each with 2 epochs of 2 updates."""
    config = on_task(base.get_config(objective="ppo", kind="tasks"), arg)
    config.name = "ppo"
    config.objective.epochs = config.objective.minibatches = 2
    config.train.batch_size = 64
    config.train.duration = "400 steps"
    return config
