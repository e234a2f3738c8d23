"""Trials for the tests of sweeps in buckets: tiny, of one shape, so that one program serves all.

50 trials; unmeasured.
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import grid


def get_config(arg: str = "") -> ConfigDict:
    config = base.get_config()
    config.name = "many"
    config.update_from_flattened_dict({
        "model.n_layers": 1, "model.d_model": 16, "model.n_heads": 2, "model.context_length": 16,
        "train.batch_size": 4, "train.duration": "40 steps", "train.chunk": 5,
        "eval.sequences": 8, "log.every": "10 steps", "log.tensorboard": False,
        "checkpoint.every": "10 steps", "schedule.warmup": "4 steps",
    })  # fmt: skip
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    return grid({"optimizer.learning_rate": [1e-3 * (1 + n / 100) for n in range(50)]})
