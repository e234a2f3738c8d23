"""Names of spoken digits, from log-mel frames, and how often they are right at four widths.

    isoflop synthesise --of=spoken_digits --to=runs/spoken
    isoflop train --config=configs/captions/spoken_digits.py --workdir=runs/spoken_captions
    isoflop sweep --config=configs/captions/spoken_digits.py --workdir=runs/spoken_by_size --nofit

2 CPU cores that other programs shared, 20 s after compilation (2026-11): 1.000 [0.987, 1.000] of
the held-out digits are right, 0.997 [0.981, 0.999] with seed 1 on a set of seed 1. The sweep takes
95 s of CPU time: 0.203, 0.777, 1.000, 1.000 at widths 4, 8, 16, 32 (docs/multimodal.md).
"""

from ml_collections import ConfigDict

from configs.captions import tones
from configs.space import grid, product

WIDTHS = (4, 8, 16, 32)  # of encoder and decoder in the sweep


def get_config(folder: str = "runs/spoken") -> ConfigDict:
    """The model of the tones at width 32, for sounds of up to 1.28 s."""
    config = tones.get_config(folder)
    config.name = "spoken"
    config.data.seconds = 1.28
    config.model.d_model, config.model.context_length = 32, 2
    config.train.duration = "10 epochs"
    config.eval.sequences = 300
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """The widths, a fifth as long: after 10 epochs nearly all is right."""
    return product(grid({"model.d_model": WIDTHS}), [{"train.duration": "2 epochs"}])
