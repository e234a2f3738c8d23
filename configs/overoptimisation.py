"""Reward over-optimisation on the task `style`: a rule as gold judge, reward models as proxies.

    isoflop train --config=configs/overoptimisation.py:policy --workdir=runs/over/policy
    isoflop train --config=configs/overoptimisation.py:proxy --workdir=runs/over/proxy-8-100
    isoflop sweep --config=configs/overoptimisation.py:rl --workdir=runs/over/rl --nofit

2 CPU cores, each run under a minute alone (2026-11): the policy's gold reward is 0.716. The best of
59 by a proxy of width 32 and 1,000 comparisons has 0.144 more, the best of 1,000 only 0.102 more;
PPO against it peaks at 0.055 more without a KL, and at 0.084 with one.

The argument is the part, and optionally the folder of the runs: `rl,runs/mine`. The policy imitates
answers of which WRONG break a rule. A proxy sees comparisons, a share NOISE of them in the wrong
order, and never the rule. PPO then optimises the policy against two of the proxies.
docs/post-training-laws.md has the commands for the other proxies, and the rest.
"""

from ml_collections import ConfigDict

from configs import base

RUNS, TASK = "runs/over", "task:style:size=1"
WRONG, NOISE = 0.8, 0.2
WEAK, STRONG = "proxy-32-100", "proxy-32-1000"  # width and comparisons
STEPS = (4, 8, 16, 32, 64, 128)  # of runs without a KL: each is the beginning of the next
KL, LONG = (0.05, 0.2, 1.0), 128  # weights of the KL, and the steps of the runs with them


def get_config(arg: str = "policy") -> ConfigDict:
    """The config of a part; ValueError lists the parts."""
    part, _, runs = arg.partition(",")
    if part not in PARTS:
        raise ValueError(f"{arg!r}: the part is one of {', '.join(PARTS)}")
    config = PARTS[part](runs or RUNS)
    config.name = part
    config.model.update(n_heads=4, context_length=96)
    config.data.tokenizer = "bytes"
    config.log.every = "10 steps"
    config.log.tensorboard = False
    config.optimizer.weight_decay = 0.0
    return config


def policy(runs: str) -> ConfigDict:
    config = base.get_config(kind="conversations")
    config.model.update(n_layers=2, d_model=64)
    config.train.update(batch_size=32, duration="600 steps")
    config.data.update(corpora=(f"{TASK}:examples=4000",), wrong_share=WRONG, too_long="drop")
    config.optimizer.learning_rate = 3e-3
    return config


def proxy(runs: str) -> ConfigDict:
    config = base.get_config(objective="reward", kind="preferences")
    config.train.update(batch_size=16, duration="200 steps")
    config.data.update(corpora=(f"{TASK}:examples=3000",), wrong_share=NOISE, too_long="drop")
    config.data.examples = 100
    config.optimizer.learning_rate = 3e-3
    config.model.update(n_layers=1, d_model=8)
    return config


def rl(runs: str) -> ConfigDict:
    config = base.get_config(objective="ppo", kind="tasks")
    config.train.update(init_from=f"{runs}/policy", batch_size=32, duration=f"{LONG} steps")
    config.data.update(task="style", size=1, prompt_length=46, answer_length=48)
    config.objective.update(reward_model=f"{runs}/{WEAK}", max_tokens=50, kl=0.0)
    config.objective.update(epochs=1, minibatches=4)  # 4 updates on 128 answers
    config.optimizer.learning_rate = 1e-4
    config.schedule.update(name="constant", warmup="0 steps")
    config.train.max_loss_ratio = 100.0  # a policy's loss passes zero
    config.eval.every = "100 %"
    config.eval.sequences = 32
    return config


PARTS = {"policy": policy, "proxy": proxy, "rl": rl}


def get_sweep(config: ConfigDict) -> list[dict]:
    """Of `rl`: PPO against a weak and a strong proxy, further and further without a KL, and with a
    KL of several weights."""
    if config.name != "rl":
        raise ValueError(f"the part {config.name} is one run; use isoflop train, or :rl")
    folder = config.objective.reward_model.rpartition("/")[0]
    found = []
    for name, proxy in (("weak", WEAK), ("strong", STRONG)):
        against = {"objective.reward_model": f"{folder}/{proxy}"}
        found += [
            against | {"name": f"{name}-{steps}", "train.duration": f"{steps} steps"}
            for steps in STEPS
        ]
        found += [against | {"name": f"{name}-kl-{kl:g}", "objective.kl": kl} for kl in KL]
    return found
