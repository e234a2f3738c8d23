"""Counts a model's parameters by component, and its training FLOPs by published conventions.

Counts are computed from the config, without creating parameters.
"""

from model import classes
from model.transformer.config import ModelConfig

COMPONENTS = ("embedding", "position", "attention", "mlp", "norm", "head")
NORMS = {"pre": 2, "post": 2, "both": 4, "parallel": 1}  # of a block, by cfg.norm_position


def parameters(cfg: ModelConfig) -> dict[str, int]:
    """Parameters by component; they sum to the total. A tied head counts as 0."""
    D, L, F = cfg.d_model, cfg.n_layers, cfg.d_ff
    heads = cfg.n_heads + 2 * cfg.n_kv_heads
    attention_bias = (heads * cfg.head_dim + D * cfg.out_bias) * cfg.attention_bias
    mlp_bias = ((1 + cfg.gated) * F + D) * cfg.mlp_bias
    norm = 1 + (cfg.norm == "layernorm" and cfg.norm_bias)  # of each dimension
    block_norms = NORMS[cfg.norm_position] * D + 2 * cfg.head_dim * cfg.qk_norm
    final_norm = D * (cfg.norm_position != "post")
    return dict(
        embedding=cfg.vocab_size * D,
        position=cfg.context_length * D * (cfg.positions == "learned"),
        attention=L * (_attention_kernels(cfg) + attention_bias),
        mlp=L * (_mlp_kernels(cfg) + mlp_bias),
        norm=(L * block_norms + final_norm) * norm,
        head=D * cfg.vocab_size * (not cfg.tie_embeddings),
        **({"classes": classes.count(cfg)} if cfg.n_classes else {}),
    )


def _attention_kernels(cfg: ModelConfig) -> int:
    """Weights of one layer's query, key, value and output projections."""
    return cfg.d_model * cfg.head_dim * (2 * cfg.n_heads + 2 * cfg.n_kv_heads)


def _mlp_kernels(cfg: ModelConfig) -> int:
    """Weights of one layer's up, down and, when gated, gate projections."""
    return (2 + cfg.gated) * cfg.d_model * cfg.d_ff


def kernels(cfg: ModelConfig) -> int:
    """Weights of all blocks' matrices: N of Kaplan et al. 2020, eq. 2.1.

    It excludes embeddings, positions, head, biases and norms. With multi-head attention and a
    plain MLP it is the paper's 2 d L (2 kH + f); otherwise it counts the matrices of the model.
    """
    return cfg.n_layers * (_attention_kernels(cfg) + _mlp_kernels(cfg))


def six_n(cfg: ModelConfig) -> int:
    """6 N, where N is all parameters. Attention's T·S products are not counted."""
    return 6 * sum(parameters(cfg).values())


def kaplan(cfg: ModelConfig) -> int:
    """3 (2 N + 2 L S kH) with N = `kernels`: Kaplan et al. 2020, table 1.

    2 L S kH counts one of attention's two products in full or, equally, the causal half of both.
    """
    return 3 * (2 * kernels(cfg) + 2 * cfg.n_layers * cfg.context_length * _attention_width(cfg))


def chinchilla(cfg: ModelConfig) -> int:
    """3 x the forward pass of `appendix_f`, per token: Hoffmann et al. 2022."""
    return 3 * appendix_f(cfg) // cfg.context_length  # exact: every term has the factor S


def appendix_f(cfg: ModelConfig) -> int:
    """Forward FLOPs of one sequence of S = context_length tokens, Hoffmann et al. 2022, appendix F.

    It counts embedding and head as matrix products, projections, scores, softmax, weighted values
    and MLP. Masked scores are counted. The paper has multi-head attention and a plain MLP. Grouped
    queries reduce only the key and value projections, because every query head still uses all keys.
    A gate is one more [D, F] matrix. Norms, biases, activations and the product with the gate are
    not counted, as in the paper.
    """
    S, D, L, V = cfg.context_length, cfg.d_model, cfg.n_layers, cfg.vocab_size
    products = 4 * S * S * _attention_width(cfg)
    softmax = 3 * cfg.n_heads * S * S
    projections = 2 * S * (_attention_kernels(cfg) + _mlp_kernels(cfg))
    return 2 * S * V * D + L * (projections + products + softmax) + 2 * S * D * V


def palm(cfg: ModelConfig) -> int:
    """6 N + 12 L H k S, where N is all parameters: Chowdhery et al. 2022, appendix B."""
    return six_n(cfg) + 12 * cfg.n_layers * _attention_width(cfg) * cfg.context_length


def _attention_width(cfg: ModelConfig) -> int:
    return cfg.n_heads * cfg.head_dim


FLOPS = {"6nd": six_n, "kaplan": kaplan, "chinchilla": chinchilla, "palm": palm}
# A third of what each counts for products with weights: the forward pass, the gradient of the
# inputs and that of the weights cost the same.
WEIGHT_FLOPS = {
    "6nd": lambda cfg: six_n(cfg) // 3,
    "kaplan": lambda cfg: 2 * kernels(cfg),
    "chinchilla": lambda cfg: 2 * kernels(cfg) + 4 * cfg.vocab_size * cfg.d_model,
    "palm": lambda cfg: six_n(cfg) // 3,
    "matmul": lambda cfg: 2 * (kernels(cfg) + cfg.vocab_size * cfg.d_model),
}


def flops_per_token(cfg: ModelConfig, convention: str) -> int:
    """Training FLOPs per token (forward and backward) at `cfg.context_length`."""
    if convention not in FLOPS:
        raise ValueError(
            f"flops convention {convention!r} is unknown; use one of {', '.join(FLOPS)}"
        )
    return FLOPS[convention](cfg)
