"""Encoder–decoders of Vaswani et al. and T5.

    isoflop train --config=configs/published/encoder_decoders.py:tiny --workdir=runs/tiny-t5

Unmeasured. The argument is `tiny`, a small T5 v1.1 that fills in the spans of text, or any name of
PUBLISHED, such as vaswani-base.

A published model has its sizes and its training. Give it your data, for example a T5 text with
--config.data.corpora=DIR --config.data.tokenizer=FILE.model, and Vaswani's model sentence pairs.
"""

import difflib

from ml_collections import ConfigDict

from configs import base

_VASWANI = "Vaswani et al. 2017 (arXiv:1706.03762), table 3, section 5"
_T5 = "Raffel et al. 2020 (arXiv:1910.10683), section 3; config.json of google-t5/t5-*"
_V1_1 = "github.com/google-research/text-to-text-transfer-transformer, released_checkpoints.md"


def vaswani(d_model: int, n_heads: int, d_ff: int, dropout: float, steps: int) -> dict:
    """Norms after each branch, sinusoids, embeddings times √d that are also the head, no biases but
    the MLP's. About 25,000 tokens of each side in a batch: here 196 rows of 128.

    The vocabulary is "about 37,000" byte-pair tokens of both languages. The paper gives no initial
    values. Its learning rate is d^-½ min(step^-½, step · 4000^-³ᐟ²), which peaks at (4000 d)^-½.
    """
    model = dict(
        vocab_size=37_000, source_length=128, context_length=128, n_layers=6, d_model=d_model,
        n_heads=n_heads, d_ff=d_ff, dropout=dropout,
    )  # fmt: skip
    return dict(
        source=_VASWANI,
        kind="pairs",
        model=model,
        train=dict(batch_size=196, duration=f"{steps} steps", label_smoothing=0.1),
        optimizer=dict(
            learning_rate=(4000 * d_model) ** -0.5, b1=0.9, b2=0.98, eps=1e-9, weight_decay=0.0,
            clip_norm=0.0,
        ),
        schedule=dict(name="inverse_sqrt", warmup="4000 steps"),
    )  # fmt: skip


def t5(n_layers: int, d_model: int, n_heads: int, head_dim: int, d_ff: int, **changes) -> dict:
    """Relative buckets, RMSNorm before each branch, no biases, scores that are not scaled, and a
    tied head whose logits are divided by √d.

    Rows of 512 source tokens, of which 568 tokens of text make the spans, and so 114 target tokens.
    The learning rate is 1/√max(step, 10,000), where ours warms up, and the published Adafactor
    scales it by the size of the parameters.
    """
    model = dict(
        vocab_size=32_128, source_length=512, context_length=114, n_layers=n_layers,
        d_model=d_model, n_heads=n_heads, head_dim=head_dim, d_ff=d_ff, norm="rmsnorm",
        norm_eps=1e-6, norm_position="pre", positions="relative", query_scale=1.0,
        logit_scale=d_model**-0.5, mlp_bias=False, embedding_scale=False, embedding_std=1.0,
    )  # fmt: skip
    return dict(
        source=_T5,
        kind="spans",
        model=model | changes,
        train=dict(batch_size=2048, duration="1000000 steps"),
        optimizer=dict(name="adafactor", learning_rate=1e-2, weight_decay=0.0),
        schedule=dict(name="inverse_sqrt", warmup="10000 steps"),
    )


def v1_1(*sizes: int) -> dict:
    """T5 v1.1, which Flan-T5 continues: a GEGLU, a head of its own, no dropout in pre-training."""
    changes = dict(gated=True, activation="gelu_tanh", tie_embeddings=False, logit_scale=1.0)
    return t5(*sizes, **changes) | dict(source=_V1_1)


PUBLISHED = {
    "vaswani-base": vaswani(512, 8, 2048, 0.1, 100_000),
    "vaswani-big": vaswani(1024, 16, 4096, 0.3, 300_000),
    "t5-small": t5(6, 512, 8, 64, 2048),
    "t5-base": t5(12, 768, 12, 64, 3072),
    "t5-large": t5(24, 1024, 16, 64, 4096),
    "t5-3b": t5(24, 1024, 32, 128, 16384),
    "t5-11b": t5(24, 1024, 128, 128, 65536),
    # Flan-T5 has the same sizes.
    "t5-v1.1-small": v1_1(8, 512, 6, 64, 1024),
    "t5-v1.1-base": v1_1(12, 768, 12, 64, 2048),
    "t5-v1.1-large": v1_1(24, 1024, 16, 64, 2816),
    "t5-v1.1-xl": v1_1(24, 2048, 32, 64, 5120),
    "t5-v1.1-xxl": v1_1(24, 4096, 64, 64, 10240),
}


def get_config(arg: str = "tiny") -> ConfigDict:
    """The config of 'tiny' or of a published model; ValueError names the nearest one."""
    if arg != "tiny" and arg not in PUBLISHED:
        near = difflib.get_close_matches(arg, ["tiny", *PUBLISHED], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"configs/published/encoder_decoders.py:{arg} is unknown; {hint}known: tiny, "
            f"{', '.join(PUBLISHED)}"
        )
    published = PUBLISHED["t5-v1.1-small" if arg == "tiny" else arg]
    config = base.get_config(family="encoder_decoder", kind=published["kind"])
    config.name = arg
    for section in published.keys() - {"source", "kind"}:
        config[section].update(published[section])
    return tiny(config) if arg == "tiny" else config


def tiny(config: ConfigDict) -> ConfigDict:
    """Few and narrow layers, the vocabulary of the tokenizer, Adam at a rate for small models."""
    config.model.update(vocab_size=0, source_length=128, context_length=30, n_layers=4)
    config.model.update(d_model=128, n_heads=4, head_dim=0, d_ff=256)
    config.train.update(batch_size=64, duration="1000 steps")
    config.optimizer.update(name="adamw", learning_rate=4e-3, weight_decay=0.1)
    config.schedule.update(name="cosine", warmup="2 %")
    return config
