"""Counts a captioner's parameters by component, and its training FLOPs by published conventions.

FLOPs are per token of a caption, the token that durations count. A row has P patches and T =
context_length tokens, all taken as full. The decoder's blocks read both, (P + T) / T of them for
each token; the encoder and the projector read the patches, P / T. The embedding of tokens and the
head see the T tokens alone. A frozen encoder has only the first of three passes.
"""

from model.captioner.config import Config, decoder, encoder
from model.transformer import count


def parameters(cfg: Config) -> dict[str, int]:
    """Trained parameters by component; they sum to the total. A tied head and a frozen encoder
    count as 0."""
    of_encoder = sum(encoder_parameters(cfg).values()) * cfg.learns_encoder
    return count.parameters(decoder(cfg)) | {
        "encoder": of_encoder,
        "projector": _projector(cfg) + _projector_biases(cfg),
    }


def encoder_parameters(cfg: Config) -> dict[str, int]:
    """Parameters of the encoder by component, frozen or not."""
    blocks = count.parameters(encoder(cfg))
    return {
        "patch": (cfg.patch_size + 1) * cfg.encoder_width,
        "position": cfg.patches * cfg.encoder_width,
    } | {name: blocks[name] for name in ("attention", "mlp", "norm")}


def _projector(cfg: Config) -> int:
    """Weights of the projector's matrices."""
    return cfg.encoder_width * cfg.d_model + cfg.d_model**2 * (cfg.projector == "mlp")


def _projector_biases(cfg: Config) -> int:
    return cfg.d_model * (1 + (cfg.projector == "mlp"))


def _ratios(cfg: Config) -> tuple[float, float, float]:
    """(all places per token, patches per token, the encoder's passes out of three)."""
    P, T = cfg.patches, cfg.context_length
    return (P + T) / T, P / T, 1.0 if cfg.learns_encoder else 1 / 3


def six_n(cfg: Config) -> float:
    """6 N, where N is all parameters, each times how often a token of a row passes it; a frozen
    encoder's count a third. Attention's products of queries and keys are not counted."""
    all_places, patches, passes = _ratios(cfg)
    found = count.parameters(decoder(cfg))
    of_tokens = found["embedding"] + found["head"]
    of_places = sum(found.values()) - of_tokens
    of_encoder = passes * sum(encoder_parameters(cfg).values())
    of_patches = of_encoder + _projector(cfg) + _projector_biases(cfg)
    return 6 * (of_tokens + all_places * of_places + patches * of_patches)


def kaplan(cfg: Config) -> float:
    """3 (2 N + 2 n kH) with N = the matrices of blocks and of the projector: Kaplan et al. 2020,
    table 1. The embeddings of tokens and patches and the head are left out."""
    all_places, patches, passes = _ratios(cfg)
    of_encoder = passes * count.kaplan(encoder(cfg))
    of_patches = of_encoder + 6 * _projector(cfg)
    return all_places * count.kaplan(decoder(cfg)) + patches * of_patches


def chinchilla(cfg: Config) -> float:
    """3 x the forward pass: Hoffmann et al. 2022, appendix F, with the patch embedding and the
    projector as matrix products."""
    T, P, of_decoder, of_encoder = cfg.context_length, cfg.patches, decoder(cfg), encoder(cfg)
    passes = _ratios(cfg)[2]
    # `appendix_f` counts embedding and head at all places of the context.
    blocks = count.appendix_f(of_decoder) - 4 * (P + T) * cfg.vocab_size * cfg.d_model
    tokens = 4 * T * cfg.vocab_size * cfg.d_model
    encoded = count.appendix_f(of_encoder) - 4 * P * cfg.encoder_width
    encoded += 2 * P * cfg.patch_size * cfg.encoder_width
    return 3 * (blocks + tokens + passes * encoded + 2 * P * _projector(cfg)) / T


def palm(cfg: Config) -> float:
    """6 N + 12 L H k n, with N of `six_n`, over both stacks: Chowdhery et al. 2022, appendix B."""
    return six_n(cfg) + _scores(cfg)


def _scores(cfg: Config) -> float:
    """FLOPs of the products of queries with keys and weights with values, per token."""
    all_places, patches, passes = _ratios(cfg)
    P, T = cfg.patches, cfg.context_length
    of_decoder = all_places * cfg.n_layers * cfg.d_model * (P + T)
    of_encoder = patches * passes * cfg.encoder_layers * cfg.encoder_width * P
    return 12 * (of_decoder + of_encoder)


def matmul_flops(cfg: Config) -> float:
    """Training FLOPs of the matrix products per token, without recomputation. The embedding of
    tokens is a lookup; that of patches is a product."""
    all_places, patches, passes = _ratios(cfg)
    of_encoder = count.kernels(encoder(cfg)) + cfg.patch_size * cfg.encoder_width
    of_patches = passes * of_encoder + _projector(cfg)
    products = all_places * count.kernels(decoder(cfg)) + cfg.d_model * cfg.vocab_size
    return 6 * (products + patches * of_patches) + _scores(cfg)


FLOPS = {"6nd": six_n, "kaplan": kaplan, "chinchilla": chinchilla, "palm": palm}
