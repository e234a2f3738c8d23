"""Full fine-tuning, LoRA of two ranks and QLoRA of one base, on text of another kind.

    isoflop train --config=configs/study/adapters.py:base --workdir=runs/adapters_base
    isoflop sweep --config=configs/study/adapters.py:runs/adapters_base --workdir=runs/adapters

2 CPU cores: unmeasured.

The base learns a made-up language; each trial goes on with another one of the same words. Adapters
take a rate ten times that of full fine-tuning.
"""

from ml_collections import ConfigDict

from configs import base

WAYS = {
    "full": {},
    "lora4": {"adapter.name": "lora", "adapter.rank": 4},
    "lora16": {"adapter.name": "lora", "adapter.rank": 16},
    "qlora16": {"adapter.name": "lora", "adapter.rank": 16, "adapter.base_dtype": "nf4"},
}


def get_config(arg: str = "base") -> ConfigDict:
    """The base, or what goes on from the run `arg`."""
    config = base.get_config()
    config.name = "base" if arg == "base" else "adapted"
    config.model.update(n_layers=2, d_model=128, n_heads=4, context_length=64)
    config.data.corpora = ("synthetic:seed=1",)
    config.train.update(batch_size=16, duration="400 steps")
    config.optimizer.learning_rate = 3e-3
    if arg != "base":
        config.train.init_from = arg
        config.data.corpora = ("synthetic:seed=2",)
        config.train.duration = "200 steps"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """One trial for each way."""
    rates = {"full": 1e-3}
    return [
        keys | {"name": way, "optimizer.learning_rate": rates.get(way, 1e-2)}
        for way, keys in WAYS.items()
    ]
