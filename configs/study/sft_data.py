"""The data law of supervised fine-tuning: loss against demonstrations, for four ways to fine-tune.

    isoflop train --config=configs/study/sft_data.py:base --workdir=runs/sft_data_base
    isoflop sweep --config=configs/study/sft_data.py:rates --workdir=runs/sft_rates --nofit
    isoflop sweep --config=configs/study/sft_data.py --workdir=runs/sft_data --seeds=2 --nofit

2 CPU cores, 10 min of CPU for the last (docs/post-training-laws.md, 2026-11): LoRA r = 16 comes to
1.15 nats/token with 30 demonstrations and full fine-tuning to 1.42, with 3,000 to 0.42 and 0.22.

The base reads the standard library; each trial goes on with the first EXAMPLES demonstrations of
one task, for as many steps whatever their number, and is evaluated often on the same held-out ones.
The loss of a trial is the lowest of its curve, as early stopping would have found it. `rates`
compares learning rates at one size.
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import grid, product

BASE = "runs/sft_data_base"
WAYS = {
    "full": {},
    "lora4": {"adapter.name": "lora", "adapter.rank": 4},
    "lora16": {"adapter.name": "lora", "adapter.rank": 16},
    "qlora16": {"adapter.name": "lora", "adapter.rank": 16, "adapter.base_dtype": "nf4"},
}
TASK = "task:style:size=1:examples=5000"
EXAMPLES = (30, 75, 190, 480, 1200, 3000)
RATE = 1e-2  # of TRIED, the best of adapters; of full fine-tuning not distinguishable from the best
TRIED, AT = (3e-3, 1e-2, 3e-2), 190  # rates, and the examples at which they are compared


def get_config(arg: str = "sft_data") -> ConfigDict:
    """The base, or what all trials share."""
    config = base.get_config(kind="text" if arg == "base" else "conversations")
    config.name = arg
    config.model.update(n_layers=2, d_model=64, n_heads=4, context_length=96)
    config.data.tokenizer = "bytes"
    config.optimizer.learning_rate = 3e-3 if arg == "base" else RATE
    config.log.tensorboard = False
    if arg == "base":
        config.train.update(batch_size=16, duration="500 steps")
        return config
    steps = 600 if arg == "rates" else 800
    config.train.update(init_from=BASE, batch_size=8, duration=f"{steps} steps")
    config.train.max_loss_ratio = 100.0  # a few examples are soon known by heart
    config.data.update(corpora=(TASK,), too_long="drop")
    config.optimizer.weight_decay = 0.0
    config.schedule.warmup = "20 steps"
    config.eval.update(every="5 %", sequences=128, batch_size=128)
    config.checkpoint.every = "100 %"
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Each way with each number of examples; of `rates`, with each rate."""
    ways = [keys | {"name": way} for way, keys in WAYS.items()]
    if config.name == "rates":
        return product(ways, grid({"optimizer.learning_rate": TRIED, "data.examples": (AT,)}))
    return product(ways, grid({"data.examples": EXAMPLES}))
