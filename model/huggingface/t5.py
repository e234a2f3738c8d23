"""Names of tensors and config keys of T5, T5 v1.1 and Flan-T5."""

import math
from typing import Any

from model.encoder_decoder.config import Config
from model.huggingface.parts import ACTIVATIONS, Part

Keys = dict[str, Any]

ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
MLP = {"wi": "up", "wo": "down"}
GATED_MLP = {"wi_0": "gate", "wi_1": "up", "wo": "down"}
SUBLAYERS = {  # {our name: (side, number in their block, their name, {their module: ours})}
    "encoder/blocks/attention": ("encoder", 0, "SelfAttention", ATTENTION),
    "encoder/blocks/mlp": ("encoder", 1, "DenseReluDense", MLP),
    "decoder/blocks/attention": ("decoder", 0, "SelfAttention", ATTENTION),
    "decoder/blocks/cross": ("decoder", 1, "EncDecAttention", ATTENTION),
    "decoder/blocks/mlp": ("decoder", 2, "DenseReluDense", MLP),
}


def modules(cfg: Config) -> dict[str, str]:
    """{their module: ours}. A gated MLP has other names than a plain one."""
    found = {"shared": "embed", "lm_head": "head"}
    for ours, (side, number, name, inner) in SUBLAYERS.items():
        theirs = f"{side}.block.{{}}.layer.{number}"
        found[f"{theirs}.layer_norm"] = f"{ours}_norm"
        for part, key in (GATED_MLP if inner is MLP and cfg.gated else inner).items():
            found[f"{theirs}.{name}.{part}"] = f"{ours}/{key}"
    for side in ("encoder", "decoder"):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias"
        found |= {bias: f"{side}/relative", f"{side}.final_layer_norm": f"{side}/final_norm"}
    return found


COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# T5's first code gave cross-attention a table too and did not read it.
UNUSED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)

KEYS = dict(
    vocab_size="vocab_size", d_model="d_model", d_kv="head_dim", d_ff="d_ff",
    num_layers="n_layers", num_decoder_layers="decoder_layers", num_heads="n_heads",
    relative_attention_num_buckets="relative_buckets",
    relative_attention_max_distance="relative_distance", layer_norm_epsilon="norm_eps",
)  # fmt: skip
DEFAULTS = dict(
    num_decoder_layers=None, relative_attention_num_buckets=32,
    relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
)  # fmt: skip
BLOCK = dict(
    norm="rmsnorm", norm_position="pre", positions="relative", query_scale=1.0,
    embedding_scale=False, attention_bias=False, mlp_bias=False, embedding_std=1.0,
)  # fmt: skip


def _read_sizes(keys: Keys, ours: Keys) -> Keys:
    """T5 has no longest input: `n_positions`, where it stands, is what it was trained on."""
    length = keys.pop("n_positions", None) or 512
    layers = ours["decoder_layers"] or ours["n_layers"]
    return {"source_length": length, "context_length": length, "decoder_layers": layers}


SIZES = Part(_read_sizes, lambda cfg: {"n_positions": cfg.source_length})


def _read_mlp(keys: Keys, ours: Keys) -> Keys:
    """`feed_forward_proj`, from which the two other keys follow. "gated-gelu" means tanh."""
    named = keys.pop("feed_forward_proj", None) or "relu"
    gated, name = named.startswith("gated-"), named.removeprefix("gated-")
    name = "gelu_new" if named == "gated-gelu" else name
    if name not in ACTIVATIONS:
        raise ValueError(
            f"feed_forward_proj={named!r} is unknown; known are {', '.join(ACTIVATIONS)}, each "
            "also after gated-"
        )
    for key, value in (("dense_act_fn", name), ("is_gated_act", gated)):
        if (given := keys.pop(key, None)) not in (None, value):
            raise ValueError(f"{key}={given!r} contradicts feed_forward_proj={named!r}; remove one")
    return {"activation": ACTIVATIONS[name], "gated": gated}


def _write_mlp(cfg: Config) -> Keys:
    name = "gelu_new" if cfg.activation == "gelu_tanh" else cfg.activation
    keys = {"dense_act_fn": name, "is_gated_act": cfg.gated}
    named = "gelu" if cfg.gated and name == "gelu_new" else name
    return keys | {"feed_forward_proj": f"gated-{named}" if cfg.gated else named}


MLP_KEYS = Part(_read_mlp, _write_mlp)


def _read_head(keys: Keys, ours: Keys) -> Keys:
    """A tied head with logits / √d, or a head of its own without: transformers has no third.

    Up to transformers 4 `tie_word_embeddings` said which; since 5 that is always true, and
    `scale_decoder_outputs` says it.
    """
    tied = keys.pop("tie_word_embeddings", None) is not False
    scaled = keys.pop("scale_decoder_outputs", None)
    tied = tied if scaled is None else tied and scaled
    scale = 1 / math.sqrt(ours["d_model"]) if tied else 1.0
    return {"tie_embeddings": tied, "logit_scale": scale}


def _write_head(cfg: Config) -> Keys:
    return {
        "tie_word_embeddings": cfg.tie_embeddings,
        "scale_decoder_outputs": cfg.tie_embeddings,
    }


HEAD = Part(_read_head, _write_head)


def _read_training(keys: Keys, ours: Keys) -> Keys:
    """Ignores rates and initial values, on which trained weights do not depend."""
    for key in ("dropout_rate", "initializer_factor"):
        keys.pop(key, None)
    return {}


TRAINING = Part(
    _read_training, lambda cfg: {"dropout_rate": cfg.dropout, "initializer_factor": 1.0}
)
PARTS = (SIZES, MLP_KEYS, HEAD, TRAINING)
