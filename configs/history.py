"""Language models before and beside GPT on one curve: a ladder of each family.

    make history
    isoflop sweep --config=configs/history.py:lstm --workdir=runs/history/lstm

Unmeasured.
"""

from ml_collections import ConfigDict

from configs import base
from configs.study import ladder

BUDGETS = (1e11, 2.5e11, 6e11)  # FLOPs by 6ND
DECODER = ((2, 24), (2, 32), (2, 40), (3, 48), (3, 64), (3, 80))


def get_config(arg: str = "decoder") -> ConfigDict:
    """What all trials of a ladder share; `arg` is a family of FAMILIES."""
    config = base.get_config()
    config.model.update(ladder.STYLES["llama"], context_length=256, n_heads=2)
    config.train.batch_size = 8
    config.optimizer.update(name="muon", learning_rate=0.02)
    config.schedule.update(name="cosine", warmup="0.5 %", final=0.0)
    config.eval.update(every="25 %", sequences=512, batch_size=32)
    config.checkpoint.update(every="50 %", keep_last=1, keep_best=0)
    return config
