"""The phases of `make assistant`: a base model, SFT, a reward model, then DPO, PPO and GRPO.

isoflop train --config=configs/post/assistant.py:sft --workdir=runs/assistant/sft
2 CPU cores: unmeasured

The task is to spell a made-up word backwards. A share WRONG of the demonstrations is wrong, so a
model that imitates them perfectly is right in 1 − WRONG of its answers; reinforcement learning from
the checker's rewards, or from comparisons, can do better.
"""

from ml_collections import ConfigDict

from configs import base

TASK, SIZE, EXAMPLES = "spelling_backwards", 5, 20_000
WRONG = 0.4
RUNS = "runs/assistant"
MODEL = dict(n_layers=3, d_model=64, n_heads=4, context_length=64)


def get_config(phase: str = "sft") -> ConfigDict:
    config = PHASES[phase]()
    config.name = phase
    config.train.max_loss_ratio = 100.0
    config.log.tensorboard = False
    return config


def started(objective: str, kind: str, source: str, **keys) -> ConfigDict:
    config = base.get_config(objective=objective, kind=kind)
    config.model.update(MODEL)
    config.train.init_from = f"{RUNS}/{source}"
    config.data.tokenizer = "bytes"
    config.update(keys)
    return config


def pretrained() -> ConfigDict:
    config = base.get_config()
    config.model.update(MODEL)
    config.data.update(tokenizer="bytes")
    config.train.update(batch_size=32, duration="500 steps")
    config.optimizer.learning_rate = 3e-3
    return config


def sft() -> ConfigDict:
    config = started("next_token", "conversations", "base")
    config.data.corpora = (f"task:{TASK}:examples={EXAMPLES}:size={SIZE}",)
    config.data.wrong_share = WRONG
    config.train.update(batch_size=64, duration="1500 steps")
    config.optimizer.learning_rate = 3e-3
    return config


PHASES = {"base": pretrained, "sft": sft}
