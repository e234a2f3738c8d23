"""Names of spoken digits, from log-mel frames.

    isoflop synthesise --of=spoken_digits --to=runs/spoken
    isoflop train --config=configs/captions/spoken_digits.py --workdir=runs/spoken_captions

unmeasured
"""

from ml_collections import ConfigDict

from configs.captions import tones


def get_config(folder: str = "runs/spoken") -> ConfigDict:
    """The model of the tones at width 32, for sounds of up to 1.28 s."""
    config = tones.get_config(folder)
    config.name = "spoken"
    config.data.seconds = 1.28
    config.model.d_model, config.model.context_length = 32, 2
    config.train.duration = "10 epochs"
    config.eval.sequences = 300
    return config
