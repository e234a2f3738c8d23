"""Knowledge distillation: a small student takes on the distribution of a larger teacher.

    isoflop train --config=configs/post/distill.py:runs/teacher --workdir=runs/student

Unmeasured.

The argument is the teacher: a run, or a folder of Hugging Face weights. Its text must have the
teacher's tokens: unless it reads bytes, give --config.data.tokenizer=RUN/tokenizer/tokenizer.json.
For conversations, give --config.data.kind=conversations (docs/distillation.md).
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """A student of 0.1M parameters on the standard library."""
    config = base.get_config(objective="distill")
    config.name = "distill"
    config.objective.teacher = arg
    config.model.n_layers, config.model.d_model, config.model.n_heads = 2, 64, 2
    config.train.duration = "2e6 tokens"
    return config
