"""GRPO on the assistant's task: the weight of the KL against the learning rate.

    isoflop sweep --config=configs/post/grpo_grid.py:runs/assistant/sft --workdir=runs/grpo_grid --nofit
    isoflop rank runs/grpo_grid

2 CPU cores, about 35 s each (2026-11): reward 0.941 at the rate 1e-3 without a KL, 0.930
with a weight of 0.1, 0.836 with 1; 0.79 at 1e-4 with any weight.

The argument is the run to start from. docs/post-training-laws.md has the ranking.
"""  # noqa: E501

from ml_collections import ConfigDict

from configs.post import assistant

KL = (0.0, 0.1, 1.0)  # weights, in the loss
RATES = (1e-4, 3e-4, 1e-3)


def get_config(arg: str = f"{assistant.RUNS}/sft") -> ConfigDict:
    """GRPO of configs/post/assistant.py, a third as long."""
    config = assistant.get_config("grpo")
    config.name = "grpo_grid"
    config.train.update(init_from=arg, duration="60 steps")
    config.eval.every = "50 %"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    return [
        {"objective.kl": weight, "optimizer.learning_rate": rate} for weight in KL for rate in RATES
    ]
