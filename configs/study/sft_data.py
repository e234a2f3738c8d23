"""The data law of supervised fine-tuning: loss against demonstrations, for four ways to fine-tune.

    isoflop train --config=configs/study/sft_data.py:base --workdir=runs/sft_data_base
    isoflop sweep --config=configs/study/sft_data.py:rates --workdir=runs/sft_data --nofit
    isoflop sweep --config=configs/study/sft_data.py --workdir=runs/sft_data --nofit

Unmeasured.

The base reads the standard library; each trial goes on with the first EXAMPLES demonstrations of
one task, and is evaluated often on the same held-out ones. The loss of a trial is the lowest of its
curve, as early stopping would have found it. `rates` compares learning rates at one size.
"""

from collections.abc import Iterable

from ml_collections import ConfigDict

from configs import base
from configs.space import chain, grid, product
from configs.study.adapters import WAYS

BASE = "runs/sft_data_base"
TASK = "task:style:size=1:examples=5000"
STEPS = {30: 600, 75: 600, 190: 600, 480: 800, 1200: 1000, 3000: 1500}  # by examples
RATES = {"full": 1e-2, "lora4": 1e-2, "lora16": 1e-2, "qlora16": 1e-2}  # the best of TRIED
TRIED, AT = (3e-3, 1e-2, 3e-2), 190  # rates, and the examples at which they are compared
REPEATED = {"full": (30, 75, 190), "lora16": (30, 75, 190)}  # examples with a second seed


def get_config(arg: str = "sft_data") -> ConfigDict:
    """The base, or what all trials share."""
    config = base.get_config(kind="text" if arg == "base" else "conversations")
    config.name = arg
    config.model.update(n_layers=2, d_model=64, n_heads=4, context_length=96)
    config.data.tokenizer = "bytes"
    config.optimizer.learning_rate = 3e-3
    config.log.tensorboard = False
    if arg == "base":
        config.train.update(batch_size=16, duration="500 steps")
        return config
    config.train.update(init_from=BASE, batch_size=8, duration="600 steps")
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
        return product(ways, grid({"optimizer.learning_rate": TRIED}), _sizes([AT]))
    ways = [way | {"optimizer.learning_rate": RATES[way["name"]]} for way in ways]
    second = [product([w | {"seed": 1}], _sizes(REPEATED.get(w["name"], ()))) for w in ways]
    return chain(product(ways, _sizes(STEPS)), *second)


def _sizes(examples: Iterable[int]) -> list[dict]:
    return [{"data.examples": n, "train.duration": f"{STEPS[n]} steps"} for n in examples]
