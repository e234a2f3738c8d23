"""Rejection sampling: supervised training on the best of 8 responses to each prompt of a task.

    isoflop train --config=configs/post/raft.py:runs/sft --workdir=runs/raft

2 CPU cores, 34 s of their time: 98 % of held-out words spelt backwards, from 71 % (2026-11;
docs/reinforcement.md). The argument is the run to start from, and the reference of the KL.
"""

from ml_collections import ConfigDict

from configs import base
from configs.post.grpo import on_task


def get_config(arg: str = "") -> ConfigDict:
    """16 prompts with 8 responses each, one update on the best of each."""
    config = on_task(base.get_config(objective="raft", kind="tasks"), arg)
    config.name = "raft"
    config.train.batch_size = 16
    config.objective.skip_flat = True
    return config
