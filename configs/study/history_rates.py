"""The search behind the learning rates of configs/history.py.

    isoflop sweep --config=configs/study/history_rates.py:lstm --workdir=runs/rates/lstm --nofit

2 busy CPU cores (2026-11), best rates: decoder 0.04 at widths of 24 and 48; LSTM
0.08 to 0.16 at 40, all three within 0.004 nats, and 0.08 at 112; GRU 0.057 at 48 and at 120, where
no higher one was tried; Elman 0.04 at 64 and 0.028 at 128.

Ten rates a factor √2 apart at two widths, at two thirds of the smallest budget of the ladders.
"""

from ml_collections import ConfigDict

from configs import history
from configs.space import chain, grid

WIDTHS = (1, 4)  # the second and the fifth size of a ladder
RATES = (0.0071, 0.01, 0.014, 0.02, 0.028, 0.04, 0.057, 0.08, 0.113, 0.16)


def get_config(arg: str = "decoder") -> ConfigDict:
    """What all trials share; `arg` is a ladder of configs/history.py."""
    config = history.get_config(arg)
    config.train.duration = "1e11 flops"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Every rate at both widths."""
    sizes = history.SIZES[history.ladder_of(config)]
    return chain(
        *(
            grid(
                {
                    "model.n_layers": [layers],
                    "model.d_model": [width],
                    "optimizer.learning_rate": RATES,
                }
            )
            for layers, width in (sizes[index] for index in WIDTHS)
        )
    )
