"""The study's ladder with WSD: all budgets of a size branch from one trunk, 38 % less compute.

    isoflop sweep --config=configs/study/wsd.py --workdir=runs/wsd

unmeasured.

Two more budgets are between the study's three; at each, the sizes of both neighbours are
trained. The 27 fitted trials cost as much as the study's 15, because each size trains its
stable phase once, up to where the decay of its largest budget begins (docs/efficient-ladders.md).
"""

from ml_collections import ConfigDict

from configs.space import chain
from configs.study import ladder

BETWEEN = {
    5.2e11: ((2, 24), (2, 32), (2, 40), (3, 48), (3, 64), (3, 80)),
    1.56e12: ((2, 32), (2, 40), (3, 48), (3, 64), (3, 80), (4, 96)),
}
LADDER = ladder.LADDER | BETWEEN


def get_config(arg: str = "llama") -> ConfigDict:
    """The study's config with a WSD schedule, whose warmup must not depend on the length."""
    config = ladder.get_config(arg)
    config.schedule.update(name="wsd", warmup="10 steps", decay="20 %")
    config.checkpoint.share_trunks = True
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """The trials to fit, and the study's one to predict."""
    return chain(
        *(ladder.trials(budget, shapes, holdout=False) for budget, shapes in LADDER.items()),
        *(ladder.trials(*held_out, holdout=True) for held_out in ladder.HELD_OUT.items()),
    )
