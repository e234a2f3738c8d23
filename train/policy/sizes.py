"""How many steps train on one rollout, and how much of the data a step reads."""

import math
from typing import Any

from train import objectives


def updates(config: Any) -> int:
    """Steps on the batches of one rollout; 1 for objectives without rollouts."""
    objective = objectives.find(config.objective.name)
    if not hasattr(objective, "passes"):
        return 1
    return math.prod(objective.passes(objective.configure(config)))


def read_share(config: Any) -> float:
    """Rows of data that a step reads, over train.batch_size: below 1 where several responses answer
    a prompt, or several updates see a response."""
    objective = objectives.find(config.objective.name)
    if not hasattr(objective, "prompts"):
        return 1
    prompts = objective.prompts(objective.configure(config))
    return prompts / updates(config) / config.train.batch_size
