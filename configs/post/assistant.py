"""The phases of `make assistant`: a base model, SFT, a reward model, then DPO, PPO and GRPO.

    isoflop train --config=configs/post/assistant.py:base --workdir=runs/assistant/base
    isoflop train --config=configs/post/assistant.py:sft --workdir=runs/assistant/sft

2 CPU cores, 5 minutes alone for all phases and the page; of three seeds pass@1 is 63 to 64 % after
SFT, 77 to 85 % after DPO, 69 to 89 % after PPO, 94 to 96 % after GRPO (2026-11; docs/assistant.md).

The argument is the phase, and optionally the folder of the phases: `grpo,runs/mine`. The task is to
spell a made-up word backwards. WRONG of the demonstrations are wrong, so a model that imitates them
well is right in 1 − WRONG of its answers. Comparisons and rewards teach it to give the answers that
it already knows to be right.
"""

from ml_collections import ConfigDict

from configs import base

RUNS = "runs/assistant"
TASK, SIZE = "spelling_backwards", 5
WRONG = 0.4  # of the demonstrations
EXAMPLES = 10_000  # demonstrations, and comparisons
MODEL = dict(n_layers=3, d_model=64, context_length=48)


def get_config(arg: str = "sft") -> ConfigDict:
    """The config of a phase; ValueError lists the phases."""
    phase, _, runs = arg.partition(",")
    if phase not in PHASES:
        raise ValueError(f"{arg!r}: the phase is one of {', '.join(PHASES)}")
    config = PHASES[phase](runs or RUNS)
    config.name = phase
    config.model.update(MODEL)
    config.data.tokenizer = "bytes"
    config.log.every = "10 steps"
    config.log.tensorboard = False
    return config


def pretrained(runs: str) -> ConfigDict:
    """Next-token prediction of the standard library's text."""
    config = base.get_config()
    config.train.update(batch_size=32, duration="500 steps")
    config.optimizer.learning_rate = 3e-3
    return config


def sft(runs: str) -> ConfigDict:
    config = base.get_config(kind="conversations")
    config.train.update(init_from=f"{runs}/base", batch_size=64, duration="800 steps")
    config.data.corpora = (f"task:{TASK}:size={SIZE}:examples={EXAMPLES}",)
    config.data.wrong_share = WRONG
    config.optimizer.learning_rate = 3e-3
    return config


def of_comparisons(objective: str, steps: int, rate: float, runs: str) -> ConfigDict:
    config = base.get_config(objective=objective, kind="preferences")
    config.train.update(init_from=f"{runs}/sft", batch_size=32, duration=f"{steps} steps")
    config.data.corpora = (f"task:{TASK}:size={SIZE}:examples={EXAMPLES}",)
    config.optimizer.update(learning_rate=rate, weight_decay=0.0)
    return config


def reward(runs: str) -> ConfigDict:
    config = of_comparisons("reward", 500, 1e-3, runs)
    config.train.batch_size = 64
    return config


def dpo(runs: str) -> ConfigDict:
    config = of_comparisons("dpo", 300, 3e-5, runs)
    config.objective.beta = 0.3
    return config


def of_rewards(objective: str, runs: str) -> ConfigDict:
    config = base.get_config(objective=objective, kind="tasks")
    config.train.update(init_from=f"{runs}/sft", batch_size=64, duration="200 steps")
    config.data.update(task=TASK, size=SIZE, prompt_length=32, answer_length=8)
    config.objective.max_tokens = 8
    config.optimizer.update(learning_rate=3e-4, weight_decay=0.0)
    config.schedule.warmup = "5 %"
    config.eval.sequences = 256
    return config


def ppo(runs: str) -> ConfigDict:
    """Rewards of the reward model."""
    config = of_rewards("ppo", runs)
    config.train.update(batch_size=128, duration="400 steps")
    config.objective.update(reward_model=f"{runs}/reward", kl=0.3)
    return config


def grpo(runs: str) -> ConfigDict:
    """Rewards of the rule that checks the answers."""
    return of_rewards("grpo", runs)


PHASES = {"base": pretrained, "sft": sft, "reward": reward, "dpo": dpo, "ppo": ppo, "grpo": grpo}
