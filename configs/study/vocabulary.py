"""The study's ladder with 4,096 BPE tokens: what a large vocabulary does to a scaling law.

    isoflop sweep --config=configs/study/vocabulary.py --workdir=runs/vocabulary
    isoflop fit --runs=runs/vocabulary --out=report

2 busy CPU cores, 15 min (2026-11), on the text of docs/study.md (the standard library plus three
English files): N* ∝ C^0.62 [0.51, 0.75] with all parameters counted, C^0.80 [0.70, 0.89] without
embeddings and head. By default this config trains on the standard library alone.

With a byte vocabulary (256 tokens) the embedding is 5 to 31 % of the parameters of the study's
models. With 4,096 tokens it is 47 to 91 %. Counting N and C with or without the embedding, which is
also the head because the two are tied, then gives exponents far apart (Pearce & Song 2024); the
report's table of conventions shows them. A token has about 3 bytes.
"""

from ml_collections import ConfigDict

from configs.space import chain
from configs.study import ladder

# Budget in FLOPs (6 N D, N all parameters): the (layers, width) trained at it, each with the full
# budget; 72k to 836k parameters.
LADDER = {
    6e11: ((2, 16), (2, 24), (2, 32), (2, 40), (3, 48)),
    1.8e12: ((2, 24), (2, 32), (2, 40), (3, 48), (3, 64)),
    5.4e12: ((2, 32), (2, 40), (3, 48), (3, 64), (4, 96)),
}


def get_config(arg: str = "llama") -> ConfigDict:
    """The study's recipe for a style of block, with a BPE tokenizer."""
    config = ladder.get_config(arg)
    config.data.update(tokenizer="bpe", vocab_size=4096)
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Five sizes at each of three budgets."""
    return chain(
        *(ladder.trials(budget, shapes, holdout=False) for budget, shapes in LADDER.items())
    )
