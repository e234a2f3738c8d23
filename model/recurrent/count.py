"""Counts a recurrent model's parameters by component, and its training FLOPs by convention."""

from model.recurrent.cells import CELLS
from model.recurrent.config import Config


def parameters(cfg: Config) -> dict[str, int]:
    """Parameters by component; they sum to the total. A tied head counts as 0."""
    cell, H, L = CELLS[cfg.cell], cfg.d_hidden, cfg.n_layers
    X, inside = cell.gates * H, H * sum(cell.kernels.values())
    norm = X + inside + 2 * H * (cfg.cell == "lstm")
    return dict(
        embedding=cfg.vocab_size * cfg.d_model,
        input=_inputs(cfg) + L * X,
        recurrent=L * (inside * H + inside - H * cell.kernels["recurrent"]),
        norm=L * norm * cfg.layer_norm,
        head=H * cfg.vocab_size * (not cfg.tie_embeddings),
    )


def _inputs(cfg: Config) -> int:
    """Weights of the layers' input projections."""
    X = CELLS[cfg.cell].gates * cfg.d_hidden
    return X * (cfg.d_model + (cfg.n_layers - 1) * cfg.d_hidden)


def kernels(cfg: Config) -> int:
    """Weights of the layers' matrices: for an LSTM, 4 H (D + H) + (L - 1) 8 H^2."""
    inside = sum(CELLS[cfg.cell].kernels.values()) * cfg.d_hidden**2
    return _inputs(cfg) + cfg.n_layers * inside


def flops(cfg: Config) -> dict[str, int]:
    """Training FLOPs per token, 3 × those of the forward pass, by convention.

    Every weight of a cell is used once a token, in the recurrence too: 2 FLOPs forward and 4
    backward, whatever the context length (Kaplan et al. 2020, section 2.1: C = 6 N without its
    attention term, as for their LSTMs in figure 7). Activations and products of gates are not
    counted.

        6nd, palm    6 N, N all parameters (Chowdhery et al. 2022, appendix B, without attention)
        kaplan       6 N, N the layers' matrices
        chinchilla   6 (the layers' matrices + V D + H V): embedding and head as products (Hoffmann
                     et al. 2022, appendix F)
    """
    total = 6 * sum(parameters(cfg).values())
    tables = cfg.vocab_size * (cfg.d_model + cfg.d_hidden)
    chinchilla = 6 * (kernels(cfg) + tables)
    return {"6nd": total, "kaplan": 6 * kernels(cfg), "chinchilla": chinchilla, "palm": total}


def matmul_flops(cfg: Config) -> int:
    """Training FLOPs of the matrix products per token: 6 × (the layers' matrices + the head)."""
    return 6 * (kernels(cfg) + cfg.d_hidden * cfg.vocab_size)
