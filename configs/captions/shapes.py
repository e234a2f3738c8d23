"""Captions of drawn shapes, and how often they are right at four widths.

    isoflop synthesise --of=shapes --to=runs/shapes
    isoflop train --config=configs/captions/shapes.py --workdir=runs/captions
    isoflop sweep --config=configs/captions/shapes.py --workdir=runs/captions_by_size --nofit

2 CPU cores that other programs shared, 2 min after compilation (2026-11): 0.995 [0.991, 0.997] of
the captions of held-out pairs of shapes are exactly right, 0.992 [0.986, 0.995] with seed 1. The
sweep, whose learning rate does not fall to 0, takes 16 min: 0.197, 0.912, 0.963, 0.952 at widths 8,
16, 32, 64 (docs/multimodal.md).
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import grid, product

WIDTHS = (8, 16, 32, 64)  # of encoder and decoder in the sweep


def get_config(folder: str = "runs/shapes") -> ConfigDict:
    """Two layers of each side at width 32, on the set in `folder`."""
    config = base.get_config("captioner", "exact_match", "images")
    config.name = "shapes"
    config.data.corpora, config.data.held_out = (f"{folder}/train",), (f"{folder}/held_out",)
    config.model.patch, config.model.context_length, config.model.init_std = 8, 14, 0.1
    config.model.d_model = 32
    config.train.batch_size = 32
    config.train.duration = "12 epochs"
    config.train.max_loss_ratio = 1000.0  # a loss near 0 is often three times its median
    config.optimizer.name, config.optimizer.learning_rate = "muon", 0.02
    config.schedule.final = 0.0  # 0.1 has 0.955: steps at the end are still too large
    config.eval.sequences, config.eval.batch_size = 2000, 100
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """The widths, half as long, down to a tenth of the learning rate."""
    shorter = {"train.duration": "6 epochs", "schedule.final": 0.1}
    return product(grid({"model.d_model": WIDTHS}), [shorter])
