"""Learning rates at three widths.  isoflop sweep --config=configs/lr_grid.py --workdir=runs/lr_grid
2 CPU cores, about 10 min: unmeasured.

Does the quickstart's recipe want another learning rate at another width? Each of three shapes sees
10 tokens a parameter at five rates. The curves of loss over rate should have one common minimum;
where it moves with the width, the ladder needs a rate per width.
"""

from ml_collections import ConfigDict

from configs import quickstart
from configs.space import grid, product, zip_

RATES = (0.005, 0.01, 0.02, 0.04, 0.08)


def get_config(arg: str | None = None) -> ConfigDict:
    """The quickstart's recipe."""
    config = quickstart.get_config()
    config.name = "lr"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """25k, 150k and 440k parameters in the blocks, times five rates a factor 2 apart."""
    shapes = zip_(
        {
            "model.n_layers": [2, 3, 4],
            "model.d_model": [32, 64, 96],
            "train.duration": ["2.5e5 tokens", "1.5e6 tokens", "4.4e6 tokens"],
        }
    )
    return product(shapes, grid({"optimizer.learning_rate": RATES}))
