"""A search over four keys of the study's recipe at one small budget.

    isoflop sweep --config=configs/study/rate_search.py --workdir=runs/rate --budget="7.6e11 flops"
    isoflop sweep --config=configs/study/rate_search.py --workdir=runs/sobol --search=sobol

2 CPU cores that others used as well, 3.6 min (2026-11): 15 trials of 5e10 FLOPs with TPE; the
lowest loss is 1.988 nats with 2 layers, a rate of 0.024, b2 = 0.9, weight decay 0.37.

Which learning rate, weight decay, second moment and depth suit a width of 32 if the compute is
fixed? TPE asks for ten random trials, then near the best results.
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
