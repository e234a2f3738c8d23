"""The keys of a recurrent encoder–decoder, its parameters by component, and its training FLOPs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model.keys import check, key
from model.recurrent.cells import CELLS

# What reads the source, in order; the last direction's final state starts the decoder.
DIRECTIONS = {
    "forward": ("forward",),
    "backward": ("backward",),
    "both": ("forward", "backward"),
}


@dataclass(frozen=True)
class Config:
    """Zeros are derived by `derive`."""

    vocab_size: int = key(0, least=1)  # tokens of both sides; 0: the tokenizer's
    source_length: int = key(128, least=1)  # tokens of the source
    context_length: int = key(128, least=1)  # tokens of the target
    cell: str = key("gru", choices=("elman", "gru", "lstm"))
    # What the decoder reads. initial: its first state is the encoder's last (Sutskever et al. 2014)
    # | every: a context vector, the same at every step (Cho et al. 2014) | attention: another one
    # at every step (Bahdanau et al. 2015)
    context: str = key("attention", choices=("initial", "every", "attention"))
    # forward | backward: the source is read from its end (the reversal of Sutskever et al. 2014) |
    # both: outputs of both, side by side (Bahdanau et al. 2015)
    directions: str = key("both", choices=tuple(DIRECTIONS))
    n_layers: int = key(1, least=1)  # of the encoder, and of the decoder
    d_model: int = key(128, least=1)  # width of the token embedding, and of the readout
    d_hidden: int = key(0, least=1)  # width of every layer's state; 0: d_model
    d_attention: int = key(0, least=1)  # width of queries and keys; 0: d_hidden
    dropout: float = key(0.0, least=0, below=1)  # on what enters and leaves layers, not on states
    tie_embeddings: bool = key(True)  # the head is the transposed token embedding
    dtype: str = key("float32", choices=("float32", "bfloat16"))  # of products; states are float32
    unroll: int = key(4, least=1)  # time steps of one trip of the compiled loop; changes no result

    def __post_init__(self):
        check(self)
        if self.tie_embeddings and self.context == "initial" and self.d_hidden != self.d_model:
            raise ValueError(
                f"model.context='initial' has no readout, so model.tie_embeddings=True needs "
                f"model.d_hidden={self.d_hidden} to equal model.d_model={self.d_model}; use "
                "d_hidden=0, or tie_embeddings=False"
            )


def derive(keys: Mapping[str, Any]) -> Config:
    """The Config of a `model` section."""
    d_hidden = keys["d_hidden"] or keys["d_model"]
    d_attention = keys["d_attention"] or d_hidden
    return Config(**{**keys, "d_hidden": d_hidden, "d_attention": d_attention})


def ways(cfg: Config) -> int:
    """Directions in which the encoder reads."""
    return len(DIRECTIONS[cfg.directions])


def context_width(cfg: Config) -> int:
    """Width of the context vector; 0 without one."""
    return {"initial": 0, "every": cfg.d_hidden, "attention": ways(cfg) * cfg.d_hidden}[cfg.context]


def readout_width(cfg: Config) -> int:
    """Width of what the head reads."""
    return cfg.d_hidden if cfg.context == "initial" else cfg.d_model


def matrices(cfg: Config) -> dict[str, int]:
    """Weights of the matrices by how often a row multiplies them: `source` once per source token,
    `target` once per target token, `row` once per row."""
    H, D, A, C = cfg.d_hidden, cfg.d_model, cfg.d_attention, context_width(cfg)
    X, L, W = CELLS[cfg.cell].gates * H, cfg.n_layers, ways(cfg)
    attends, every = cfg.context == "attention", cfg.context == "every"
    return dict(
        source=W * (X * (D + H) + (L - 1) * X * (W * H + H)) + attends * A * W * H,
        target=X * (D + H) + (L - 1) * X * 2 * H
        + attends * (A * H + X * C)
        + (cfg.context != "initial") * 2 * D * (H + D + C),
        row=(cfg.context != "initial") * L * H * H + every * (H * H + X * C),
    )  # fmt: skip


def parameters(cfg: Config) -> dict[str, int]:
    """Parameters by component; they sum to the total. A tied head counts as 0."""
    H, D, V = cfg.d_hidden, cfg.d_model, cfg.vocab_size
    A, C, L, W = cfg.d_attention, context_width(cfg), cfg.n_layers, ways(cfg)
    cell, reads = CELLS[cfg.cell], cfg.context != "initial"
    X = cell.gates * H
    biases = X + (sum(cell.kernels.values()) - cell.kernels["recurrent"]) * H
    attends, every = cfg.context == "attention", cfg.context == "every"
    return dict(
        embedding=V * D,
        encoder=W * (X * (D + H) + biases + (L - 1) * (X * (W * H + H) + biases)),
        bridge=reads * L * (H * H + H) + every * (H * H + H),
        attention=attends * (A * H + A * W * H + A) + reads * X * C,
        decoder=X * (D + H) + biases + (L - 1) * (X * 2 * H + biases),
        readout=reads * 2 * D * (H + D + C + 1),
        head=readout_width(cfg) * V * (not cfg.tie_embeddings),
    )


def attention_products(cfg: Config) -> int:
    """Multiplications of additive attention per target token: v · tanh(…) is S A, the context S C
    (Bahdanau et al. 2015, appendix A.1.2, over S = source_length tokens)."""
    attends = cfg.context == "attention"
    return attends * cfg.source_length * (cfg.d_attention + context_width(cfg))


def used(cfg: Config) -> float:
    """Multiplications by matrices per target token, head and attention excluded: a row of
    context_length target tokens has source_length source tokens."""
    n, T = matrices(cfg), cfg.context_length
    return n["target"] + (n["source"] * cfg.source_length + n["row"]) / T


def flops(cfg: Config) -> dict[str, float]:
    """Training FLOPs per target token, 3 × those of the forward pass, by convention. A matrix of
    the encoder is used S / T times per target token: S source_length, T context_length.

        6nd          6 N, N all parameters, as if each were used once
        kaplan       6 × the matrices used, without embeddings and head (Kaplan et al. 2020, section
                     2.1) and without attention's scores
        chinchilla   6 × (the matrices used + embeddings and head as products + attention's scores
                     and contexts), in the manner of Hoffmann et al. 2022, appendix F
        palm         6 × (the matrices used + the head + attention): what is multiplied, as in
                     Chowdhery et al. 2022, appendix B
    """
    head, tables = readout_width(cfg) * cfg.vocab_size, cfg.vocab_size * cfg.d_model
    lookups = tables * (1 + cfg.source_length / cfg.context_length)
    inside, attention = used(cfg), attention_products(cfg)
    return {
        "6nd": 6.0 * sum(parameters(cfg).values()),
        "kaplan": 6 * inside,
        "chinchilla": 6 * (inside + lookups + head + attention),
        "palm": 6 * (inside + head + attention),
    }


def matmul_flops(cfg: Config) -> float:
    """Training FLOPs of the matrix products per target token."""
    return flops(cfg)["palm"]
