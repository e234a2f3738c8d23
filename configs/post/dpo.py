"""Direct preference optimisation of a model that was fine-tuned on demonstrations.

    isoflop train --config=configs/post/dpo.py:runs/sft --workdir=runs/dpo

A tiny model that adds numbers (docs/preferences.md, 2026-11): 89 % of the held-out pairs in the
right order after one epoch of 1,800 comparisons.

The argument is the run, or the folder of Hugging Face weights, to start from. It is the reference
too, unless --config.objective.reference=RUN names another. The comparisons are made up from a task;
give yours with --config.data.corpora=FILE.jsonl (docs/preferences.md).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """One epoch at a small learning rate, as in Rafailov et al. 2023, appendix B."""
    config = base.get_config(objective="dpo", kind="preferences")
    config.name = "dpo"
    config.train.init_from = arg
    config.train.duration = "1 epochs"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 0.0
    config.schedule.warmup = "10 %"
    return config
