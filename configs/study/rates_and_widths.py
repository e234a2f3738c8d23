"""Which learning rate and width is best? A grid of four rates and two widths.

    isoflop sweep --config=configs/study/rates_and_widths.py --workdir=runs/grid --seeds=2

RESULT
"""

from ml_collections import ConfigDict

from configs import quickstart
from configs.space import grid


def get_config() -> ConfigDict:
    """The quickstart's recipe at 5e10 FLOPs (6ND), a few seconds of one core."""
    config = quickstart.get_config()
    config.model.n_layers = 2
    config.train.duration = "5e10 flops"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Rates a factor 2 apart at two widths."""
    return grid(
        {
            "model.d_model": (24, 40),
            "optimizer.learning_rate": (0.01, 0.02, 0.04, 0.08),
        }
    )
