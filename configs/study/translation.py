"""What a decoder must know of the source: one vector, or attention (a made-up language).

    isoflop sweep --config=configs/study/translation.py --workdir=runs/translation

Unmeasured at its own sizes. Smaller runs (docs/translation.md, 2 busy CPU cores, 1 to 6 min each,
2026-11): attention translates all sentences exactly; with a context vector at every step 40 % of
those of up to 8 words and 0.7 % of those of 9 to 16 are exact, with the last state alone 2 %.

The same GRU learns to translate sentences of 3 to 48 words of a language with agreement and
another word order (`data/sources/translation_task.py`), with three ways to read the source: its
last state as the decoder's first (Sutskever et al. 2014), a context vector at every step (Cho et
al. 2014), and additive attention (Bahdanau et al. 2015). `exact_match_…` is the share of sentences,
by length, that greedy decoding translates without an error. The argument is the size of the
lexicon: small, medium or large.
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import zip_


def get_config(arg: str = "small") -> ConfigDict:
    """The attention model."""
    config = base.get_config("recurrent_encoder_decoder", "exact_match", "pairs")
    config.name = f"translation-{arg}"
    config.data.corpora = (f"synthetic_pairs:size={arg}:clauses=3:sentences=40000",)
    config.data.tokenizer = "words"
    config.data.rows = "packed"
    config.model.source_length = config.model.context_length = 64
    config.model.d_model = 128
    config.train.batch_size = 16
    config.train.duration = "1e6 tokens"
    config.train.max_loss_ratio = 1000.0  # the loss falls to 0, and then one rare word is a spike
    config.optimizer.learning_rate = 2e-3
    config.eval.sequences = 1024
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """Without attention the source is read from its end, which shortens the way to its first words
    (Sutskever et al. 2014, section 3.3)."""
    contexts = ["initial", "every", "attention"]
    read = ["backward", "backward", "both"]
    return zip_({"model.context": contexts, "model.directions": read})
