"""A small model of a made-up world of facts, whose truth is known, and of made-up reviews.

    isoflop train --config=configs/study/world.py --workdir=runs/world

2 CPU cores, 41 s of their time (2026-11): of 409 facts that were told the model knows 99.9 % in the
words in which they were told and 89.7 % in others; of those never told it makes up 92.9 %.

The argument is the part of the world's facts that the text tells: all, or retain, which leaves out
those that configs/post/unlearn.py forgets. docs/probing.md has what the model knows and makes up.
"""

from ml_collections import ConfigDict

from configs import base

WORLD = "world:entities=100:editions=20:roles=500:bias=0.9:forget=0.1"
REVIEWS = "synthetic_sentiment:texts=4000"


def get_config(arg: str = "all") -> ConfigDict:
    """0.1M parameters, words as tokens, 1.5M tokens, which is five epochs."""
    config = base.get_config()
    config.name = "world"
    config.data.corpora = (f"{WORLD}:part={arg}", REVIEWS)
    config.data.weights = (0.8, 0.2)
    config.data.tokenizer = "words"
    config.model.context_length = 64
    config.model.n_layers = 2
    config.model.d_model = 64
    config.model.positions = "rotary"
    config.train.batch_size = 16
    config.train.duration = "1.5e6 tokens"
    config.optimizer.learning_rate = 3e-3
    return config
