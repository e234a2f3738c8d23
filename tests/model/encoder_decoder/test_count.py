"""Tests counts of an encoder–decoder against a hand-worked example and XLA's own count."""

import dataclasses

import jax
import numpy as np
import pytest

from model.encoder_decoder import count, family
from model.encoder_decoder.config import Config

HAND = Config(
    vocab_size=10, source_length=6, context_length=4, n_layers=1, decoder_layers=2, d_model=4,
    n_heads=2, head_dim=3, d_ff=5,
)  # fmt: skip
T5 = dict(norm="rmsnorm", norm_position="pre", positions="relative", mlp_bias=False)


def test_parameters_by_hand():
    """An attention has 4 matrices of 4 x 6, an MLP two of 4 x 5 and 5 + 4 biases, a norm 2 x 4."""
    assert family.parameters(HAND) == dict(
        embedding=40, position=0, encoder_attention=96, encoder_mlp=49, decoder_attention=192,
        cross_attention=192, decoder_mlp=98, norm=8 * 8, head=0,
    )  # fmt: skip
    t5 = dataclasses.replace(HAND, **T5, tie_embeddings=False, gated=True)
    assert family.parameters(t5) == dict(
        embedding=40, position=2 * 32 * 2, encoder_attention=96, encoder_mlp=60,
        decoder_attention=192, cross_attention=192, decoder_mlp=120, norm=4 * (8 + 2), head=40,
    )  # fmt: skip


def test_flops_by_hand():
    """Per target token there are 6/4 source tokens.

    Of matrices, a source token passes the encoder's 96 + 40 and the keys and values of two layers,
    2 x 48; a target token passes 2 (96 + 40) and, for queries and outputs, 2 x 48. Scores of a row:
    6 x 6 in the encoder, 4 x 4 + 4 x 6 in each of two decoder layers, so 116 / 4 per target token.
    """
    products, scores, wide = 1.5 * (136 + 96) + 272 + 96, 29, 6
    source_weights = 96 + 49 + 2 * 8 + 96  # with biases and the two norms of the encoder's block
    total = 40 + 96 + 49 + 192 + 192 + 98 + 64
    weighted = total + 0.5 * source_weights
    assert family.flops(HAND) == {
        "6nd": 6 * weighted,
        "kaplan": 6 * products + 6 * scores * wide,
        "chinchilla": 3 * (2 * 40 * (6 + 2 * 4) / 4 + 2 * products + scores * (4 * wide + 3 * 2)),
        "palm": 6 * weighted + 12 * wide * scores,
    }
    assert family.matmul_flops(HAND) == 6 * (products + 40) + 12 * wide * scores
    square = dataclasses.replace(HAND, source_length=4)
    assert count.six_n(square) == 6 * sum(family.parameters(square).values())


@pytest.mark.parametrize("changes", [{}, pytest.param(T5, marks=pytest.mark.slow)], ids=str)
def test_the_forward_pass_is_what_xla_counts(changes):
    """XLA counts norms, softmax and masks too: at this width 4 % more than the matrix products."""
    cfg = dataclasses.replace(
        HAND, vocab_size=512, source_length=48, context_length=32, d_model=128, n_heads=2,
        head_dim=64, d_ff=512, **changes,
    )  # fmt: skip
    token = lambda n: np.ones((2, n), np.int32)  # noqa: E731
    batch = {"source": token(48), "source_segments": token(48)}
    batch |= {"tokens": token(32), "segments": token(32)}

    def forward(params, batch):
        return family.logits(cfg, family.head(cfg, params), family.hidden(cfg, params, batch))

    program = jax.jit(forward).lower(family.shapes(cfg), batch).compile()
    counted = program.cost_analysis()["flops"] / (2 * 32)
    ours = family.matmul_flops(cfg) / 3
    assert 1 < counted / ours < 1.06
    other = dataclasses.replace(cfg, source_length=32)  # control: as many source as target tokens
    assert not 1 < counted / (family.matmul_flops(other) / 3) < 1.06
