"""The quickstart's ladder with 4,096 BPE tokens: what a large head does to a scaling law.

    isoflop sweep --config=configs/vocabulary.py --workdir=runs/vocabulary
    isoflop fit --runs=runs/vocabulary --out=report

2 busy CPU cores, 15 min (2026-11), on the text of docs/study.md: N* ∝ C^0.62 [0.51, 0.75] with all
parameters counted, C^0.80 [0.70, 0.89] without embeddings and head.

With 256 bytes the embedding is a tenth of a small model; with 4,096 tokens it is most of it.
Counting parameters and FLOPs with or without it then gives exponents far apart (Pearce & Song
2024), which the report's table of conventions shows. The text is the quickstart's; a token
has about 3 bytes.
"""

from ml_collections import ConfigDict

from configs import quickstart
from configs.space import chain

# Budget in FLOPs (6 N D, N all parameters): the (layers, width) that share it; 71k to 836k.
LADDER = {
    6e11: ((2, 16), (2, 24), (2, 32), (2, 40), (3, 48)),
    1.8e12: ((2, 24), (2, 32), (2, 40), (3, 48), (3, 64)),
    5.4e12: ((2, 32), (2, 40), (3, 48), (3, 64), (4, 96)),
}


def get_config(arg: str = "llama") -> ConfigDict:
    """The quickstart's recipe for a style of block, with a BPE tokenizer."""
    config = quickstart.get_config(arg)
    config.data.update(tokenizer="bpe", vocab_size=4096)
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Five sizes for each of three budgets."""
    return chain(*(quickstart.trials(budget, shapes, False) for budget, shapes in LADDER.items()))
