"""Hugging Face's model families: the names of their tensors and config keys.

Tables translate the keys of `config.json` that have a direct counterpart among ours. Pairs of
functions translate the others: see `model/huggingface/config_json.py`. Defaults are those of the
family's class.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from model import families
from model.huggingface import parts, t5
from model.huggingface.parts import Part

# {their module: ours}. A tuple means that theirs is our tensors concatenated along the outputs.
LLAMA = {
    "model.embed_tokens": "embed",
    "model.layers.{}.input_layernorm": "blocks/attention_norm",
    "model.layers.{}.self_attn.q_proj": "blocks/attention/query",
    "model.layers.{}.self_attn.k_proj": "blocks/attention/key",
    "model.layers.{}.self_attn.v_proj": "blocks/attention/value",
    "model.layers.{}.self_attn.o_proj": "blocks/attention/out",
    "model.layers.{}.post_attention_layernorm": "blocks/mlp_norm",
    "model.layers.{}.mlp.gate_proj": "blocks/mlp/gate",
    "model.layers.{}.mlp.up_proj": "blocks/mlp/up",
    "model.layers.{}.mlp.down_proj": "blocks/mlp/down",
    "model.norm": "final_norm",
    "lm_head": "head",
}
QK_NORM = {
    "model.layers.{}.self_attn.q_norm": "blocks/attention/query_norm",
    "model.layers.{}.self_attn.k_norm": "blocks/attention/key_norm",
}
GEMMA2 = LLAMA | {
    "model.layers.{}.post_attention_layernorm": "blocks/attention_post_norm",
    "model.layers.{}.pre_feedforward_layernorm": "blocks/mlp_norm",
    "model.layers.{}.post_feedforward_layernorm": "blocks/mlp_post_norm",
}
PHI3 = {
    "model.embed_tokens": "embed",
    "model.layers.{}.input_layernorm": "blocks/attention_norm",
    "model.layers.{}.self_attn.qkv_proj": (
        "blocks/attention/query",
        "blocks/attention/key",
        "blocks/attention/value",
    ),
    "model.layers.{}.self_attn.o_proj": "blocks/attention/out",
    "model.layers.{}.post_attention_layernorm": "blocks/mlp_norm",
    "model.layers.{}.mlp.gate_up_proj": ("blocks/mlp/gate", "blocks/mlp/up"),
    "model.layers.{}.mlp.down_proj": "blocks/mlp/down",
    "model.norm": "final_norm",
    "lm_head": "head",
}
GPT2 = {
    "transformer.wte": "embed",
    "transformer.wpe": "position",
    "transformer.h.{}.ln_1": "blocks/attention_norm",
    "transformer.h.{}.attn.c_attn": (
        "blocks/attention/query",
        "blocks/attention/key",
        "blocks/attention/value",
    ),
    "transformer.h.{}.attn.c_proj": "blocks/attention/out",
    "transformer.h.{}.ln_2": "blocks/mlp_norm",
    "transformer.h.{}.mlp.c_fc": "blocks/mlp/up",
    "transformer.h.{}.mlp.c_proj": "blocks/mlp/down",
    "transformer.ln_f": "final_norm",
    "lm_head": "head",
}

# {their key: our key with the same meaning}.
SIZES = dict(
    vocab_size="vocab_size",
    max_position_embeddings="context_length",
    hidden_size="d_model",
    intermediate_size="d_ff",
    num_hidden_layers="n_layers",
    num_attention_heads="n_heads",
    num_key_value_heads="n_kv_heads",
    tie_word_embeddings="tie_embeddings",
    initializer_range="init_std",
)
RMS = SIZES | dict(rms_norm_eps="norm_eps")
BIAS = dict(attention_bias="attention_bias")
SOFTCAPS = dict(attn_logit_softcapping="attention_softcap", final_logit_softcapping="logit_softcap")
# Values of our keys in all blocks of a family, if they differ from our defaults.
BLOCK = dict(
    norm="rmsnorm", positions="rotary", gated=True, attention_bias=False, mlp_bias=False,
    init="normal",
)  # fmt: skip
GEMMA_BLOCK = BLOCK | dict(norm_offset=True, embedding_scale=True)
FREE = dict(tie_word_embeddings=False, initializer_range=0.02, num_key_value_heads=None)
TIED = FREE | dict(tie_word_embeddings=True)
NO_BIAS = dict(attention_bias=False, mlp_bias=False)
ONE_WAY = dict(use_bidirectional_attention=False)


@dataclass(frozen=True)
class Family:
    """The checkpoint format of one `model_type`.

    architecture  the name of its class
    modules       {their module: ours}; see above. It may depend on the config
    keys          {their key: ours}, with equal values
    parts         readers and writers of all other keys
    block         values of our keys that the family fixes
    defaults      values of their keys that are missing from config.json
    fixed         their keys that must have this value or be absent
    conv1d        the matrices of blocks are stored [in, out], like ours
    ours          our family that computes it
    copies        tensors that some files have beside the embedding, equal to it
    unused        tensors that some files have and no model reads
    """

    architecture: str
    modules: dict[str, Any] | Callable[[Any], dict[str, Any]]
    keys: dict[str, str]
    parts: tuple[Part, ...]
    block: dict[str, Any]
    defaults: dict[str, Any]
    fixed: dict[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    conv1d: bool = False
    ours: str = "decoder"
    copies: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def model(self) -> families.Family:
        """The module of our family."""
        return families.find(self.ours)


SILU = parts.activation("hidden_act", "silu", "gelu_pytorch_tanh")
TANH = parts.activation("hidden_activation", "gelu_pytorch_tanh", "gelu_pytorch_tanh")

# If several families fit a model, `config_json.write` uses the first.
FAMILIES = {
    "gpt2": Family(
        "GPT2LMHeadModel", GPT2,
        dict(
            vocab_size="vocab_size", n_positions="context_length", n_embd="d_model",
            n_layer="n_layers", n_head="n_heads", n_inner="d_ff",
            layer_norm_epsilon="norm_eps", tie_word_embeddings="tie_embeddings",
            initializer_range="init_std",
        ),
        (
            parts.activation("activation_function", "gelu_new", "gelu_new"),
            parts.EVEN_HEADS,
            parts.DROPOUT,
        ),
        {},
        dict(
            n_inner=None, layer_norm_epsilon=1e-5, tie_word_embeddings=True,
            initializer_range=0.02,
        ),
        dict(
            scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
            add_cross_attention=False,
        ),
        conv1d=True,
    ),
    "llama": Family(
        "LlamaForCausalLM", LLAMA, RMS | BIAS | dict(mlp_bias="mlp_bias"),
        (SILU, parts.HEADS, parts.ROPE), BLOCK, FREE | NO_BIAS | dict(rms_norm_eps=1e-6),
    ),
    "mistral": Family(
        "MistralForCausalLM", LLAMA, RMS,
        (SILU, parts.HEADS, parts.ROPE, parts.window_everywhere(4096)),
        BLOCK, FREE | dict(rms_norm_eps=1e-6), NO_BIAS,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM", LLAMA, RMS,
        (SILU, parts.EVEN_HEADS, parts.ROPE, parts.WINDOW_ABOVE),
        BLOCK | dict(attention_bias=True, out_bias=False), FREE | dict(rms_norm_eps=1e-6),
        dict(mlp_bias=False, use_mrope=False),
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM", LLAMA | QK_NORM, RMS | BIAS,
        (SILU, parts.HEADS, parts.ROPE, parts.WINDOW_ABOVE),
        BLOCK | dict(qk_norm=True), FREE | dict(rms_norm_eps=1e-6, attention_bias=False),
        dict(mlp_bias=False),
    ),
    "phi3": Family(
        "Phi3ForCausalLM", PHI3, RMS,
        (SILU, parts.EVEN_HEADS, parts.PARTIAL_ROPE, parts.window_everywhere(None)),
        BLOCK, FREE | dict(rms_norm_eps=1e-5),
        NO_BIAS | dict(lm_head_bias=False),
    ),
    "gemma": Family(
        "GemmaForCausalLM", LLAMA, RMS | BIAS,
        (parts.GEMMA_ACTIVATION, parts.HEADS, parts.ROPE),
        GEMMA_BLOCK, TIED | dict(rms_norm_eps=1e-6, attention_bias=False), ONE_WAY,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM", GEMMA2, RMS | BIAS | SOFTCAPS,
        (TANH, parts.HEADS, parts.ROPE, parts.QUERY_SCALE, parts.WINDOW_EVEN),
        GEMMA_BLOCK | dict(norm_position="both"),
        TIED | dict(
            rms_norm_eps=1e-6, attention_bias=False, attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
        ),
        ONE_WAY,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM", GEMMA2 | QK_NORM, RMS | BIAS | SOFTCAPS,
        (TANH, parts.HEADS, parts.TWO_ROPES, parts.QUERY_SCALE, parts.WINDOW_PERIOD),
        GEMMA_BLOCK | dict(norm_position="both", qk_norm=True),
        TIED | dict(
            rms_norm_eps=1e-6, attention_bias=False, attn_logit_softcapping=None,
            final_logit_softcapping=None,
        ),
        ONE_WAY,
    ),
    "cohere": Family(
        "CohereForCausalLM", LLAMA,
        SIZES | BIAS | dict(layer_norm_eps="norm_eps", logit_scale="logit_scale"),
        (SILU, parts.HEADS, parts.ROPE),
        BLOCK | dict(
            norm="layernorm", norm_bias=False, norm_position="parallel", rope_layout="interleaved"
        ),
        TIED | dict(layer_norm_eps=1e-5, logit_scale=0.0625, attention_bias=False),
        dict(mlp_bias=False, use_qk_norm=False),
    ),
    "t5": Family(
        "T5ForConditionalGeneration", t5.modules, t5.KEYS, t5.PARTS, t5.BLOCK, t5.DEFAULTS,
        ours="encoder_decoder", copies=t5.COPIES, unused=t5.UNUSED,
    ),
}  # fmt: skip
"""{model_type: Family}. transformers has no PaLM class; Cohere's block computes the same function.
"""
