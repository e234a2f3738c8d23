"""A search over four keys of the study's recipe on one small model.

    isoflop sweep --config=configs/study/rate_search.py --workdir=runs/rate_search
    isoflop sweep --config=configs/study/rate_search.py --workdir=runs/sobol --search=sobol

Unmeasured.

Which learning rate, weight decay, second moment and warm-up suit a model of 33k parameters? Sixteen
points of a Sobol sequence cover the ranges; `--search=tpe` asks near the best results instead.
"""

from ml_collections import ConfigDict

from configs.space import Search, integers, log_uniform, search, uniform
from configs.study import ladder


def get_config(arg: str = "llama") -> ConfigDict:
    """The study's recipe for a style of block, at a third of its smallest budget."""
    config = ladder.get_config(arg)
    config.name = "rate"
    config.model.update(n_layers=2, d_model=32, context_length=64, n_heads=2)
    config.train.batch_size = 16
    config.train.duration = "5e10 flops"
    return config


def get_search(config: ConfigDict) -> Search:
    """24 trials by TPE; the seed of the config is that of the search, too."""
    axes = {
        "optimizer.learning_rate": log_uniform(1e-3, 0.3),
        "optimizer.weight_decay": uniform(0.0, 0.4),
        "optimizer.b2": [0.9, 0.95, 0.99],
        "model.n_layers": integers(1, 3),
    }
    return search("tpe", axes, trials=24, seed=config.seed)
