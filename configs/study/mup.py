"""Learning rates at three widths: does a parametrisation have one best rate for all of them?

    isoflop sweep --config=configs/study/mup.py:mup --workdir=runs/mup
    isoflop sweep --config=configs/study/mup.py:standard --workdir=runs/mup_standard

1 busy CPU core, 2 min each (2026-11): best rates at widths 32, 64, 128 are .0066, .0066, .0061
under μP (three seeds) and .0071, .0030, .0017 under the standard parametrisation (two seeds). The
losses, and what this does not show: docs/hyperparameter-transfer.md.

Widths 32, 64 and 128 see the same tokens in the same steps, at rates a factor 2 apart. Under μP and
CompleteP the base shape is the narrowest model; the others inherit its best rate.
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import grid, product

WIDTHS = (32, 64, 128)
RATES = (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04)


def get_config(arg: str = "mup") -> ConfigDict:
    """What all trials share; `arg` is model.parametrization."""
    config = base.get_config()
    config.name = arg
    config.model.update(n_layers=2, n_heads=4, context_length=64)
    config.model.update(parametrization=arg, base_width=32, base_head_dim=8, base_depth=2)
    config.train.update(batch_size=8, duration="200 steps")
    config.schedule.update(name="linear", warmup="5 %", final=0.0)
    config.eval.update(every="0 steps", sequences=256, batch_size=64)
    config.checkpoint.update(every="0 steps", keep_last=1, keep_best=0)
    config.log.update(every="10 %", tensorboard=False)
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Every width at every rate."""
    return product(grid({"model.d_model": WIDTHS}), grid({"optimizer.learning_rate": RATES}))
