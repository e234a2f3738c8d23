"""Learning rates at three widths.

    isoflop sweep --config=configs/study/lr_grid.py --workdir=runs/lr_grid

2 CPU cores, 4 min (2026-11): best rates .02, .04, .02 at widths 32, 64, 96 with losses of 1.629,
1.727, 2.015 nats; at width 64 the rate .02 costs .005 nats more. So 0.02 at every width. With
`:gpt`, on the text of docs/study.md: best .02, .04, .02 with 1.887, 2.041, 2.410; at width 64 the
rate .02 costs .098, at the others .04 costs .002 and .012. So 0.04.

Does the best learning rate of the study's recipe depend on the width? Each of three shapes
spends one small budget at five rates. If the curves of loss over rate have a common minimum, one
rate serves the whole ladder; otherwise each width needs its own.
"""

from ml_collections import ConfigDict

from configs.space import grid, product, zip_
from configs.study import ladder

RATES = (0.005, 0.01, 0.02, 0.04, 0.08)


def get_config(arg: str = "llama") -> ConfigDict:
    """The study's recipe for a style of block, a little above its smallest budget."""
    config = ladder.get_config(arg)
    config.name = "lr"
    config.train.duration = "4e11 flops"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """33k, 167k and 468k parameters at five rates, a factor 2 apart."""
    shapes = zip_({"model.n_layers": [2, 3, 4], "model.d_model": [32, 64, 96]})
    return product(shapes, grid({"optimizer.learning_rate": RATES}))
