"""Counts an encoder–decoder's parameters by component, and its training FLOPs by published
conventions. Counts are computed from the config, without creating parameters.

FLOPs are per target token, the token that durations count. A row has S = source_length source
tokens and T = context_length target tokens, all taken as full. So a target token costs S/T times
what the encoder does with a source token, and S/T times the keys and values that the decoder makes
of one.
"""

from model.encoder_decoder.config import Config


def parameters(cfg: Config) -> dict[str, int]:
    """Parameters by component; they sum to the total. A tied head counts as 0."""
    D, F, X, E, L = _sizes(cfg)
    attention = 4 * D * X + (3 * X + D) * cfg.attention_bias
    mlp = (2 + cfg.gated) * D * F + ((1 + cfg.gated) * F + D) * cfg.mlp_bias
    norms = 2 * E + 3 * L + 2 * (cfg.norm_position == "pre")
    tables = 2 * (cfg.positions == "relative")
    return dict(
        embedding=cfg.vocab_size * D,
        position=tables * cfg.relative_buckets * cfg.n_heads,
        encoder_attention=E * attention,
        encoder_mlp=E * mlp,
        decoder_attention=L * attention,
        cross_attention=L * attention,
        decoder_mlp=L * mlp,
        norm=norms * D * (1 + (cfg.norm == "layernorm")),
        head=D * cfg.vocab_size * (not cfg.tie_embeddings),
    )


def _sizes(cfg: Config) -> tuple[int, int, int, int, int]:
    """D, F, all heads' width X, and the layers of encoder and decoder."""
    return cfg.d_model, cfg.d_ff, cfg.n_heads * cfg.head_dim, cfg.n_layers, cfg.decoder_layers


def _products(cfg: Config) -> float:
    """Weights of matrices, each times the tokens of a row that pass it, per target token.

    N of Kaplan et al. 2020, eq. 2.1: without embeddings, head, biases and norms.
    """
    D, F, X, E, L = _sizes(cfg)
    S, T = cfg.source_length, cfg.context_length
    attention, mlp = 4 * D * X, (2 + cfg.gated) * D * F
    of_source = E * (attention + mlp) + L * 2 * D * X  # cross-attention's keys and values
    of_target = L * (attention + mlp) + L * 2 * D * X  # its queries and outputs
    return (S * of_source + T * of_target) / T


def _scores(cfg: Config) -> float:
    """Scores of a row's queries with all keys that its products include, per target token and
    head. Masked scores count."""
    S, T = cfg.source_length, cfg.context_length
    return (cfg.n_layers * S * S + cfg.decoder_layers * (T * T + T * S)) / T


def _all_weights(cfg: Config) -> float:
    """All parameters, with the encoder's counted S/T times."""
    n = parameters(cfg)
    D, _, X, E, L = _sizes(cfg)
    per_norm = D * (1 + (cfg.norm == "layernorm"))
    norms = (2 * E + (cfg.norm_position == "pre")) * per_norm
    of_source = n["encoder_attention"] + n["encoder_mlp"] + n["position"] // 2 + norms
    of_source += L * (2 * D * X + 2 * X * cfg.attention_bias)  # cross-attention's keys and values
    return sum(n.values()) + (cfg.source_length / cfg.context_length - 1) * of_source


def six_n(cfg: Config) -> float:
    """6 N, where N is all parameters. Attention's products of queries and keys are not counted.

    Parameters that source tokens pass count S/T times: with S = T it is 6 N.
    """
    return 6 * _all_weights(cfg)


def kaplan(cfg: Config) -> float:
    """3 (2 N + 2 n kH) with N = the matrices of blocks: Kaplan et al. 2020, table 1.

    n is the number of keys of every attention, over all layers: one of attention's two products.
    """
    return 3 * (2 * _products(cfg) + 2 * _scores(cfg) * cfg.n_heads * cfg.head_dim)


def chinchilla(cfg: Config) -> float:
    """3 x the forward pass: Hoffmann et al. 2022, appendix F.

    It counts the embeddings of both sides and the head as matrix products, projections, scores,
    softmax, weighted values and MLP.
    """
    attention = _scores(cfg) * (4 * cfg.n_heads * cfg.head_dim + 3 * cfg.n_heads)
    return 3 * (_embeddings(cfg) + 2 * _products(cfg) + attention)


def _embeddings(cfg: Config) -> float:
    """Forward FLOPs per target token of the embeddings and the head, as matrix products."""
    S, T = cfg.source_length, cfg.context_length
    return 2 * cfg.vocab_size * cfg.d_model * (S + 2 * T) / T


def palm(cfg: Config) -> float:
    """6 N + 12 H k n, with N of `six_n` and n of `kaplan`: Chowdhery et al. 2022, appendix B."""
    return six_n(cfg) + 12 * cfg.n_heads * cfg.head_dim * _scores(cfg)


def matmul_flops(cfg: Config) -> float:
    """Training FLOPs of the matrix products per target token, without recomputation."""
    head = cfg.d_model * cfg.vocab_size
    return 6 * (_products(cfg) + head) + 12 * cfg.n_heads * cfg.head_dim * _scores(cfg)


# A third of what each counts for products with weights: see model/transformer/count.py.
WEIGHT_FLOPS = {
    "6nd": lambda cfg: 2 * _all_weights(cfg),
    "kaplan": lambda cfg: 2 * _products(cfg),
    "chinchilla": lambda cfg: _embeddings(cfg) + 2 * _products(cfg),
    "palm": lambda cfg: 2 * _all_weights(cfg),
    "matmul": lambda cfg: 2 * (_products(cfg) + cfg.d_model * cfg.vocab_size),
}
FLOPS = {"6nd": six_n, "kaplan": kaplan, "chinchilla": chinchilla, "palm": palm}
