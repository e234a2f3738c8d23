"""Supervised fine-tuning on conversations, from a base model.

    isoflop train --config=configs/post/sft.py:runs/tiny --workdir=runs/sft

2 CPU cores, 50 s of their time: a model of 0.1M parameters spells 71 % of held-out words backwards
after 1,200 steps on demonstrations of which 40 % are wrong (2026-11; docs/reinforcement.md).

The argument is the run, or the folder of Hugging Face weights, to start from; without one a model
of 0.8M parameters starts from nothing. The demonstrations are made up from a task; give yours with
--config.data.corpora=FILE.jsonl, and the model's tokenizer, unless it reads bytes, with
--config.data.tokenizer=RUN/tokenizer/tokenizer.json (docs/post-training.md).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """Next-token prediction of the assistant's tokens, three times over the conversations."""
    config = base.get_config(kind="conversations")
    config.name = "sft"
    config.train.init_from = arg
    config.data.rows = "packed"
    config.train.duration = "3 epochs"
    config.optimizer.learning_rate = 5e-4  # about a sixth of pre-training's
    config.optimizer.weight_decay = 0.0
    config.schedule.warmup = "5 %"
    return config
