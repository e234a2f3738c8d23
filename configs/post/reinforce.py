"""REINFORCE with the baseline of a group, on a task whose answers a rule checks.

    isoflop train --config=configs/post/reinforce.py:runs/sft --workdir=runs/reinforce

2 CPU cores, 41 s of their time: 97 % of held-out words spelt backwards, from 71 % (2026-11;
docs/reinforcement.md). The argument is the run to start from, and the reference of the KL.
"""

from ml_collections import ConfigDict

from configs import base
from configs.post.grpo import on_task


def get_config(arg: str = "") -> ConfigDict:
    """16 prompts with 8 responses each, one update on them."""
    config = base.get_config(objective="reinforce", kind="tasks")
    config.name = "reinforce"
    return on_task(config, arg)
