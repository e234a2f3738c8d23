"""One model.  isoflop train --config=configs/pretrain.py:tiny --workdir=runs/tiny
2 CPU cores: unmeasured.

    configs/pretrain.py:tiny         0.8M parameters on the bytes of the standard library
    configs/pretrain.py:llama2-7b    any name of configs/families.py: unmeasured

A published model has its vocabulary, batch, duration and learning rate. Give it your text with
--config.data.corpora=DIR --config.data.tokenizer=FILE.model
"""

import difflib

from ml_collections import ConfigDict

from configs import base
from configs.families import FAMILIES


def get_config(arg: str = "tiny") -> ConfigDict:
    """The config of 'tiny' or of a published model; ValueError names the nearest one."""
    config = base.get_config()
    config.name = arg
    if arg == "tiny":
        return tiny(config)
    if arg not in FAMILIES:
        near = difflib.get_close_matches(arg, ["tiny", *FAMILIES], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"configs/pretrain.py:{arg} is unknown; {hint}known: tiny, {', '.join(FAMILIES)}"
        )
    config.model.dtype = "bfloat16"
    for section, keys in FAMILIES[arg].items():
        if section != "source":
            config[section].update(keys)
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.train.duration = "3e6 tokens"
    config.optimizer.learning_rate = 3e-3
    return config
