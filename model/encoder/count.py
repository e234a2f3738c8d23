"""Counts an encoder's parameters by component, and its training FLOPs by published conventions.

FLOPs are per token of a full row of T = context_length tokens. The masked-LM head runs on the
masked tokens only, `masked` of all tokens. The pooler and the classes run once a row.
"""

from model import classes
from model.encoder.config import Config


def parameters(cfg: Config) -> dict[str, int]:
    """Parameters by component; they sum to the total.

    `head` is the masked-LM head without its matrix, the token embedding: transform, its norm, and
    the bias of the vocabulary. Without `head`, bert-base with its pooler has 109,482,240.
    """
    V, D, F, L = cfg.vocab_size, cfg.d_model, cfg.d_ff, cfg.n_layers
    return dict(
        embedding=(V + cfg.token_types) * D,
        position=cfg.context_length * D,
        attention=L * (4 * D * D + 4 * D),
        mlp=L * (2 * D * F + F + D),
        norm=(2 * L + 1) * 2 * D,
        pooler=(D + 1) * D * cfg.pooler,
        head=((D + 1) * D + 2 * D + V) * cfg.masked_head,
        classes=classes.count(cfg),
    )


def kernels(cfg: Config) -> int:
    """Weights of all blocks' matrices: N of Kaplan et al. 2020, eq. 2.1."""
    return cfg.n_layers * (4 * cfg.d_model**2 + 2 * cfg.d_model * cfg.d_ff)


def _heads(cfg: Config) -> float:
    """Weights of the heads' matrices, each times how often a token of a row passes it."""
    D = cfg.d_model
    masked = cfg.masked * D * (D + cfg.vocab_size) * cfg.masked_head
    pooled = D * (D * cfg.pooler + cfg.n_classes) if cfg.n_classes else 0
    return masked + pooled / cfg.context_length


def six_n(cfg: Config) -> int:
    """6 N, where N is all parameters. Attention's products of queries and keys are not counted."""
    return 6 * sum(parameters(cfg).values())


def kaplan(cfg: Config) -> int:
    """3 (2 N + 2 L T D) with N = `kernels`: Kaplan et al. 2020, table 1. It counts one of
    attention's two products, as in the paper."""
    return 3 * (2 * kernels(cfg) + 2 * cfg.n_layers * cfg.context_length * cfg.d_model)


def chinchilla(cfg: Config) -> float:
    """3 x the forward pass: Hoffmann et al. 2022, appendix F.

    It counts the embedding as a matrix product, projections, scores, softmax, weighted values, MLP
    and, where they run, the heads.
    """
    T, D, L = cfg.context_length, cfg.d_model, cfg.n_layers
    attention = L * (4 * T * D + 3 * cfg.n_heads * T)
    forward = 2 * cfg.vocab_size * D + 2 * kernels(cfg) + attention + 2 * _heads(cfg)
    return 3 * forward


def palm(cfg: Config) -> int:
    """6 N + 12 L D T, where N is all parameters: Chowdhery et al. 2022, appendix B."""
    return six_n(cfg) + 12 * cfg.n_layers * cfg.d_model * cfg.context_length


def matmul_flops(cfg: Config) -> float:
    """Training FLOPs of the matrix products per token, without recomputation."""
    attention = 12 * cfg.n_layers * cfg.d_model * cfg.context_length
    return 6 * (kernels(cfg) + _heads(cfg)) + attention


# A third of what each counts for products with weights: see model/transformer/count.py.
WEIGHT_FLOPS = {
    "6nd": lambda cfg: six_n(cfg) // 3,
    "kaplan": lambda cfg: 2 * kernels(cfg),
    "chinchilla": lambda cfg: 2 * (cfg.vocab_size * cfg.d_model + kernels(cfg) + _heads(cfg)),
    "palm": lambda cfg: six_n(cfg) // 3,
    "matmul": lambda cfg: 2 * (kernels(cfg) + _heads(cfg)),
}
FLOPS = {"6nd": six_n, "kaplan": kaplan, "chinchilla": chinchilla, "palm": palm}
