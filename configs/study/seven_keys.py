"""Seven keys at random: which of them matter?

    isoflop sweep --config=configs/study/seven_keys.py --workdir=runs/random

RESULT
"""

from ml_collections import ConfigDict

from configs.space import Search, choice, log_uniform, search, uniform
from configs.study import rates_and_widths


def get_config() -> ConfigDict:
    """The recipe of rates_and_widths.py."""
    return rates_and_widths.get_config()


def get_search(config: ConfigDict) -> Search:
    """Twenty-four random draws of seven keys."""
    axes = {
        "model.d_model": choice((24, 32, 40)),
        "model.n_layers": choice((1, 2, 3)),
        "optimizer.learning_rate": log_uniform(3e-3, 1e-1),
        "optimizer.weight_decay": log_uniform(1e-3, 1.0),
        "optimizer.b1": uniform(0.8, 0.98),
        "train.batch_size": choice((8, 16, 32)),
        "schedule.final": uniform(0.0, 0.3),
    }
    return search("random", axes, trials=24, seed=0)
