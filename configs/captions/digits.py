"""Names of handwritten digits, scikit-learn's.

    isoflop synthesise --of=digits --to=runs/digits
    isoflop train --config=configs/captions/digits.py --workdir=runs/digit_captions

2 CPU cores that a dozen programs shared, 1 min (2026-11): 0.983 [0.964, 0.992] of the held-out
digits are right.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(folder: str = "runs/digits") -> ConfigDict:
    """Two layers of each side at width 32, on the set in `folder`."""
    config = base.get_config("captioner", "exact_match", "images")
    config.name = "digits"
    config.data.corpora, config.data.held_out = (f"{folder}/train",), (f"{folder}/held_out",)
    config.data.height, config.data.width, config.data.channels = 8, 8, 1
    config.model.patch, config.model.context_length, config.model.init_std = 2, 2, 0.1
    config.model.d_model = 32
    config.train.batch_size = 64
    config.train.duration = "40 epochs"
    config.train.max_loss_ratio = 1000.0  # a loss near 0 is often three times its median
    config.optimizer.name, config.optimizer.learning_rate = "muon", 0.02
    config.eval.sequences, config.eval.batch_size = 360, 120
    return config
