"""Reward over-optimisation on the task `style`: a rule as gold judge, reward models as proxies.

    isoflop train --config=configs/post/overoptimisation.py:policy --workdir=runs/over/policy
    isoflop sweep --config=configs/post/overoptimisation.py:proxies --workdir=runs/over/proxies --nofit
    isoflop sweep --config=configs/post/overoptimisation.py:rl --workdir=runs/over/rl --nofit

Unmeasured.

docs/post-training-laws.md has the commands that follow, and the results. The argument is the part,
and optionally the folder of the runs: `rl,runs/mine`. The policy imitates answers of which WRONG
break a rule. A proxy sees comparisons, a share NOISE of them in the wrong order, and never the
rule. PPO then optimises the policy against one of the proxies, at several weights of the KL.
"""  # noqa: E501

from ml_collections import ConfigDict

from configs import base

RUNS, TASK = "runs/over", "task:style:size=1"
WRONG, NOISE = 0.5, 0.2
MODEL = dict(n_layers=2, d_model=64, n_heads=4, context_length=96)
SIZES = ((1, 8), (1, 24), (2, 64))  # (layers, width) of a proxy
COMPARISONS = (100, 2000)
KL = (0.0, 0.02, 0.1, 0.5)  # weights
PROXY = "proxies/d_model=24,n_layers=1,corpora=task:style:size=1:examples=100"  # of PPO


def get_config(arg: str = "policy") -> ConfigDict:
    """The config of a part; ValueError lists the parts."""
    part, _, runs = arg.partition(",")
    if part not in PARTS:
        raise ValueError(f"{arg!r}: the part is one of {', '.join(PARTS)}")
    config = PARTS[part](runs or RUNS)
    config.name = part
    config.model.update(MODEL)
    config.data.tokenizer = "bytes"
    config.log.every = "10 steps"
    config.log.tensorboard = False
    config.optimizer.weight_decay = 0.0
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Proxies of all sizes and numbers of comparisons, or PPO at all weights of the KL."""
    if config.name == "rl":
        return [{"objective.kl": weight} for weight in KL]
    return [
        {
            "model.n_layers": n_layers,
            "model.d_model": d_model,
            "data.corpora": (f"{TASK}:examples={count}",),
        }
        for n_layers, d_model in SIZES
        for count in COMPARISONS
    ]


def policy(runs: str) -> ConfigDict:
    config = base.get_config(kind="conversations")
    config.train.update(batch_size=32, duration="600 steps")
    config.data.update(corpora=(f"{TASK}:examples=4000",), wrong_share=WRONG, too_long="drop")
    config.optimizer.learning_rate = 3e-3
    return config


def proxies(runs: str) -> ConfigDict:
    config = base.get_config(objective="reward", kind="preferences")
    config.train.update(batch_size=32, duration="400 steps")
    config.data.update(corpora=(f"{TASK}:examples=2000",), wrong_share=NOISE, too_long="drop")
    config.optimizer.learning_rate = 3e-3
    return config


def rl(runs: str) -> ConfigDict:
    config = base.get_config(objective="ppo", kind="tasks")
    config.train.update(init_from=f"{runs}/policy", batch_size=64, duration="200 steps")
    config.data.update(task="style", size=1, prompt_length=46, answer_length=48)
    config.objective.update(reward_model=f"{runs}/{PROXY}", max_tokens=50)
    config.optimizer.learning_rate = 3e-4
    config.train.max_loss_ratio = 100.0  # a policy's loss passes zero
    config.eval.every = "50 %"
    config.eval.sequences = 32
    return config


PARTS = {"policy": policy, "proxies": proxies, "rl": rl}
