"""What cleaning is worth: a ladder for each way of cleaning one corpus, on one validation text.

    isoflop sweep --config=configs/study/cleaning.py --workdir=runs/raw \\
        --config.data.corpora=corrupted:book.txt --config.data.held_out=other.txt
    isoflop sweep --config=configs/study/cleaning.py --workdir=runs/cleaned \\
        --config.data.corpora=cleaned/text --config.data.held_out=other.txt
    isoflop compare runs/cleaned runs/raw --out=runs/comparison

`other.txt` is clean text of the same kind that the corpus does not contain. docs/data.md has the
results. The recipe is that of configs/quickstart.py with smaller budgets, so that 2 MB of text last
for about one epoch. 2 busy CPU cores: 2 min a ladder (2026-11).
"""

from ml_collections import ConfigDict

from configs import quickstart
from configs.study import ladder

# Budget in FLOPs: the (layers, width), each trained with the full budget; 9k to 65k parameters.
LADDER = {
    6.4e10: ((2, 16), (2, 20), (2, 24), (2, 32)),
    1.6e11: ((2, 20), (2, 24), (2, 32), (2, 40)),
    4e11: ((2, 24), (2, 32), (2, 40), (3, 48)),
}


def get_config(arg: str = "llama") -> ConfigDict:
    """What all trials share; `arg` is a style of block, one of ladder.STYLES."""
    return quickstart.get_config(arg)


def get_sweep(config: ConfigDict) -> list[dict]:
    """The trials to fit."""
    return quickstart.with_rates(config, ladder.all_trials(LADDER, {}))
