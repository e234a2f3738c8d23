"""Encoders of Devlin et al. 2019: BERT base and large, as published.

    isoflop train --config=configs/published/encoders.py:bert-base --workdir=runs/bert --dry_run

Unmeasured. The argument is a name of PUBLISHED. Give it your text and the published vocabulary:
--config.data.corpora=DIR --config.data.tokenizer=FOLDER/tokenizer.json
"""

import difflib

from ml_collections import ConfigDict

from configs import base

_BERT = (
    "Devlin et al. 2019 (arXiv:1810.04805), sections 3 and 3.1, appendix A.2; google-research/bert"
)


def bert(n_layers: int, d_model: int, n_heads: int) -> dict:
    """The uncased vocabulary of 30,522 tokens. 256 rows of 512 tokens for a million steps (the
    paper has rows of 128 for the first 90 % of them); the code clips gradients at 1.

    The paper also guesses whether one sentence follows another, which trains the pooler. Here it is
    trained by fine-tuning alone.
    """
    return dict(
        source=_BERT,
        model=dict(
            vocab_size=30_522, context_length=512, n_layers=n_layers, d_model=d_model,
            n_heads=n_heads, d_ff=4 * d_model, token_types=2, norm_eps=1e-12, activation="gelu",
            dropout=0.1, pooler=True, init_std=0.02,
        ),
        data=dict(masked=0.15),
        train=dict(batch_size=256, duration="1000000 steps"),
        optimizer=dict(
            learning_rate=1e-4, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.01, clip_norm=1.0
        ),
        schedule=dict(name="linear", warmup="10000 steps", final=0.0),
    )  # fmt: skip


PUBLISHED = {
    "bert-base": bert(12, 768, 12),
    "bert-large": bert(24, 1024, 16),
}


def get_config(arg: str = "bert-base") -> ConfigDict:
    """The config of a published model; ValueError names the nearest one."""
    if arg not in PUBLISHED:
        near = difflib.get_close_matches(arg, PUBLISHED, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"configs/published/encoders.py:{arg} is unknown; {hint}known: {', '.join(PUBLISHED)}"
        )
    config = base.get_config("encoder", "masked", "masked_text")
    config.name = arg
    for section in PUBLISHED[arg].keys() - {"source"}:
        config[section].update(PUBLISHED[arg][section])
    return config
