"""Word vectors of a text: the argument is skipgram, cbow, glove or lsa.

    isoflop train --config=configs/study/word_vectors.py:skipgram --workdir=runs/skipgram
    isoflop sweep --config=configs/study/word_vectors.py:glove --workdir=runs/glove

One core, 1.9 min (2026-11): skip-gram puts "exception" nearest to "error" and "tuple" to "list"
(docs/word-vectors.md).
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import grid

WORD2VEC = ("word2vec", "negative_sampling", "word_pairs")
PARTS = {  # family, objective and kind of data
    "skipgram": WORD2VEC,
    "cbow": WORD2VEC,
    "glove": ("glove", "glove", "cooccurrence"),
    "lsa": ("lsa", "reconstruction", "documents"),
}


def get_config(arg: str = "skipgram") -> ConfigDict:
    """Vectors of 100 numbers for lower-case words. ValueError for another model."""
    if arg not in PARTS:
        raise ValueError(f"{arg!r} is no model of words; use one of {', '.join(PARTS)}")
    config = base.get_config(*PARTS[arg])
    config.name = arg
    config.data.tokenizer = "lowercase_words"
    config.data.vocab_size = 8000
    if arg == "lsa":
        config.data.document_words = 200
        return config
    if arg == "cbow":
        config.model.method = arg
    config.train.batch_size = 16
    config.train.duration = "20 epochs"
    config.optimizer.learning_rate = 0.01
    config.optimizer.b2 = 0.999
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "linear"
    config.schedule.final = 0.0
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Three widths."""
    return grid({"model.d_model": [50, 100, 200]})
