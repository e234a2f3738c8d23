"""What llama.cpp's architectures can hold: the table LAYOUTS, and the keys of a GGUF file.

Read from llama.cpp's loaders (src/models/*.cpp). `check` refuses a model that does not fit the
layout of its Hugging Face family; llama.cpp would load many of these models and compute something
else.
"""

from dataclasses import dataclass

from model.transformer import parametrization, positions
from model.transformer.config import ModelConfig

QKV = ("query", "key", "value")


@dataclass(frozen=True)
class Layout:
    """The layout of one Hugging Face family.

    arch         its name in GGUF
    activation   the only activation that it computes
    biases       Linears that may have a bias; tensors that it does not read are refused
    fused        query, key and value are one tensor; gate and up, where it has gates, are another
    interleaved  rotary pairs are neighbours, so rows of query and key are permuted
    offset       the scale of a norm is stored as 1 + ours
    scalings     valid values of model.rope_scaling besides none
    local        layers may have a window
    tied         the head is the embedding
    """

    arch: str
    activation: str = "silu"
    biases: tuple[str, ...] = ()
    fused: bool = False
    interleaved: bool = False
    offset: bool = False
    scalings: tuple[str, ...] = ("linear",)
    local: bool = False
    tied: bool = False


LLAMA = Layout(
    "llama",
    biases=(*QKV, "out", "gate", "up", "down"),
    interleaved=True,
    scalings=("linear", "llama3", "longrope"),
)
GEMMA = dict(activation="gelu_tanh", offset=True, scalings=("linear",))
LAYOUTS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "gpt2": Layout(
        "gpt2", "gelu_tanh", biases=(*QKV, "out", "up", "down"), fused=True, scalings=()
    ),
    "qwen2": Layout("qwen2", biases=QKV),
    "qwen3": Layout("qwen3", biases=QKV),
    "phi3": Layout("phi3", fused=True, scalings=("linear", "longrope")),
    "gemma": Layout("gemma", tied=True, **GEMMA),
    "gemma2": Layout("gemma2", tied=True, local=True, **GEMMA),
    "gemma3_text": Layout("gemma3", local=True, **GEMMA),
}
"""{model_type of Hugging Face: Layout}."""
LARGEST = {"gemma2": 46, "gemma3_text": 62}  # layers of Gemma 27B: see `_scale`


def find(model_type: str) -> Layout:
    """The Layout of a Hugging Face family. ValueError lists the known ones."""
    if model_type not in LAYOUTS:
        raise ValueError(
            f"model_type={model_type!r} has no GGUF layout here; use one of {', '.join(LAYOUTS)}"
        )
    return LAYOUTS[model_type]


def check(cfg: ModelConfig, model_type: str) -> None:
    """ValueError, in one line with key and value, if llama.cpp would compute another function."""
    layout = find(model_type)
    for key, wanted in faults(cfg, model_type, layout).items():
        raise ValueError(
            f"model.{key}={getattr(cfg, key)!r}: GGUF's layout {layout.arch!r} cannot hold it, it "
            f"has {wanted} there; change the model, or keep it in safetensors with --to_hf"
        )


def faults(cfg: ModelConfig, model_type: str, layout: Layout) -> dict[str, str]:
    """{key of `cfg` that the layout cannot express: what it has instead}."""
    found = {}
    if cfg.activation != layout.activation:
        found["activation"] = layout.activation
    if cfg.attention_bias and not set(QKV) <= set(layout.biases):
        found["attention_bias"] = "no biases"
    if cfg.attention_bias and cfg.out_bias and "out" not in layout.biases:
        found["out_bias"] = "no bias of the output projection"
    if cfg.mlp_bias and "down" not in layout.biases:
        found["mlp_bias"] = "no biases"
    if layout.tied and not cfg.tie_embeddings:
        found["tie_embeddings"] = "the embedding as its head"
    sees_less = cfg.window and cfg.window < cfg.context_length
    if sees_less and not layout.local and any(map(cfg.is_local, range(cfg.n_layers))):
        found["window"] = "attention to the whole context"
    scales = cfg.positions == "rotary" and cfg.rope_scaling not in ("none", *layout.scalings)
    if scales:
        found["rope_scaling"] = " or ".join(("none", *layout.scalings))
    if layout.local and abs(parametrization.scores(cfg) / _scale(cfg, model_type) - 1) > 1e-6:
        found["query_scale"] = f"{_scale(cfg, model_type):.6g}"
    if model_type == "gemma2":
        found |= {
            k: "a cap above 0"
            for k in ("attention_softcap", "logit_softcap")
            if not getattr(cfg, k)
        }
    elif model_type == "gemma3_text" and cfg.attention_softcap:
        found["attention_softcap"] = "no cap"
    return found


def _scale(cfg: ModelConfig, model_type: str) -> float:
    """The factor on the scores that llama.cpp derives from the sizes of a Gemma 2 or 3."""
    largest = cfg.n_layers == LARGEST.get(model_type)
    return (cfg.d_model // cfg.n_heads if largest else cfg.head_dim) ** -0.5


def keys(cfg: ModelConfig, model_type: str) -> dict[str, bool | int | float | str | list]:
    """{key without the prefix of the architecture: value}; integers are uint32, floats float32."""
    eps = "layer_norm_epsilon" if cfg.norm == "layernorm" else "layer_norm_rms_epsilon"
    about = {
        "vocab_size": cfg.vocab_size,
        "context_length": cfg.context_length,
        "embedding_length": cfg.d_model,
        "feed_forward_length": cfg.d_ff,
        "block_count": cfg.n_layers,
        "attention.head_count": cfg.n_heads,
        "attention.head_count_kv": cfg.n_kv_heads,
        "attention.key_length": cfg.head_dim,
        "attention.value_length": cfg.head_dim,
        f"attention.{eps}": float(cfg.norm_eps),
    }
    if cfg.positions == "rotary":
        about |= {"rope.freq_base": float(cfg.rope_theta), "rope.dimension_count": cfg.rotary_dim}
    if cfg.rope_scaling == "linear":
        about |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(cfg.rope_factor)}
    if cfg.rope_scaling == "longrope":
        about |= {
            "rope.scaling.type": "longrope",
            "rope.scaling.original_context_length": cfg.rope_original_context,
            "rope.scaling.attn_factor": positions.longrope(cfg, cfg.context_length)[1],
        }
    local = [cfg.is_local(layer) for layer in range(cfg.n_layers)]
    if find(model_type).local and any(local):
        about["attention.sliding_window"] = cfg.window
        about["attention.sliding_window_pattern"] = local
        about["rope.freq_base_swa"] = float(cfg.rope_theta_local or cfg.rope_theta)
    elif find(model_type).local:
        about["attention.sliding_window"] = cfg.context_length if model_type == "gemma2" else 0
    if cfg.attention_softcap:
        about["attn_logit_softcapping"] = float(cfg.attention_softcap)
    if cfg.logit_softcap:
        about["final_logit_softcapping"] = float(cfg.logit_softcap)
    return about
