"""The golden cases: tiny models, one per family, with the family's difficult features on.

A case is a dict with these keys:
    config     arguments of the family's config class in transformers, and `model_type`
    flips      {description: changed keys of `config`}; each flip must move the logits visibly
    older      keys of config.json as older checkpoints had them (None removes a key); they are
               written to older_config.json beside config.json
    embedding  standard deviation of the embeddings, small enough for the first epsilon to matter
    dtype      dtype of the weights on disk, if it isn't float32
    prompts    prompt lengths for greedy search; prompts are padded on the left to equal length
    published  True if the tensors are named as in the first GPT-2 on the hub
    short      a length within the original context, for models that scale positions beyond it
The keys shards, grads, beams and tokenizer select additional outputs. Head widths are not powers of
two, and they differ from width / heads where the config class allows it.
"""

WINDOW = 7
COMMON = dict(vocab_size=97, bos_token_id=None, eos_token_id=None, pad_token_id=None)
SMALL = COMMON | dict(
    hidden_size=36, intermediate_size=44, num_hidden_layers=2, num_attention_heads=6,
    num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
GPT2 = COMMON | dict(
    model_type="gpt2", n_embd=40, n_head=4, n_inner=56, n_layer=2, n_positions=48,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, layer_norm_epsilon=1e-5,
)  # fmt: skip
LLAMA = SMALL | dict(
    model_type="llama", head_dim=10, rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type="default", rope_theta=500.0),
)  # fmt: skip
LLAMA3_SCALING = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=0.5, high_freq_factor=2.0,
    original_max_position_embeddings=16,
)  # fmt: skip
LLAMA3 = LLAMA | dict(rope_parameters=LLAMA3_SCALING | dict(rope_theta=500.0))
LLAMA_LINEAR = LLAMA | dict(
    num_hidden_layers=1, rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=4.0)
)
GEMMA = SMALL | dict(hidden_size=30, head_dim=10, rms_norm_eps=1e-5)
GEMMA1 = GEMMA | dict(
    model_type="gemma", num_key_value_heads=1,
    rope_parameters=dict(rope_type="default", rope_theta=500.0),
)  # fmt: skip
GEMMA2 = GEMMA | dict(
    model_type="gemma2", num_hidden_layers=3, sliding_window=WINDOW, query_pre_attn_scalar=7,
    attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
    rope_parameters=dict(rope_type="default", rope_theta=500.0),
)  # fmt: skip
GEMMA3_ROPE = dict(
    sliding_attention=dict(rope_type="default", rope_theta=100.0),
    full_attention=dict(rope_type="linear", rope_theta=3000.0, factor=8.0),
)
GEMMA3 = GEMMA | dict(
    model_type="gemma3_text", hidden_size=24, intermediate_size=36, num_attention_heads=4,
    num_hidden_layers=7, sliding_window=WINDOW, query_pre_attn_scalar=7, num_key_value_heads=1,
    rope_parameters=GEMMA3_ROPE,
)  # fmt: skip
PHI3 = SMALL | dict(
    model_type="phi3", hidden_size=40, num_attention_heads=4, rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.6),
    sliding_window=WINDOW,
)  # fmt: skip
LONGROPE = dict(short_factor=[1.0, 1.1, 1.3, 1.7, 2.3], long_factor=[1.5, 2.0, 3.5, 6.0, 8.0])
PHI3_LONG = PHI3 | dict(
    sliding_window=None, max_position_embeddings=48, original_max_position_embeddings=12,
    rope_parameters=LONGROPE | dict(
        rope_type="longrope", rope_theta=500.0, partial_rotary_factor=1.0,
        original_max_position_embeddings=12,
    ),
)  # fmt: skip
QWEN2 = SMALL | dict(
    model_type="qwen2", hidden_size=40, num_attention_heads=4, rms_norm_eps=1e-5,
    tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=500.0),
)  # fmt: skip
QWEN_WINDOW = dict(
    hidden_size=24, intermediate_size=36, num_hidden_layers=3, use_sliding_window=True,
    sliding_window=WINDOW, max_window_layers=1,
)  # fmt: skip
COHERE = SMALL | dict(
    model_type="cohere", hidden_size=42, head_dim=10, num_key_value_heads=1, layer_norm_eps=1e-5,
    logit_scale=42**-0.5, rope_parameters=dict(rope_type="default", rope_theta=500.0),
)  # fmt: skip


def rope(case: dict, **changes) -> dict:
    """A flip of the case's rope parameters."""
    return dict(rope_parameters=case["rope_parameters"] | changes)


def flips_of(case: dict) -> dict:
    """Flips for nearly every case with rotary positions and RMSNorm."""
    return {
        "eps 1e-5 → 1e-6": dict(rms_norm_eps=1e-6),
        "theta 500 → 600": rope(case, rope_theta=600.0),
        "silu → exact gelu": dict(hidden_act="gelu"),
    }


def plain_rope(**keys) -> dict:
    """Keys of an older config: rope_theta at the top level, and no rope_parameters."""
    return dict(rope_parameters=None, rope_theta=500.0) | keys


CASES = {
    "gpt2": dict(
        config=GPT2,
        flips={
            "tanh gelu → exact gelu": dict(activation_function="gelu"),
            "eps 1e-5 → 1e-6": dict(layer_norm_epsilon=1e-6),
            "scores / √C → unscaled": dict(scale_attn_weights=False),
        },
        embedding=0.04, grads=True, beams=True,
    ),
    "gpt2_exact_gelu": dict(
        config=GPT2 | dict(activation_function="gelu", n_layer=1),
        flips={
            "exact gelu → tanh gelu": dict(activation_function="gelu_new"),
            "eps 1e-5 → 1e-6": dict(layer_norm_epsilon=1e-6),
        },
        embedding=0.04,
    ),
    "gpt2_published": dict(
        config=GPT2 | dict(n_layer=1), flips={}, older=dict(n_ctx=48),
        embedding=0.04,
        published=True,
    ),
    "llama": dict(
        config=LLAMA | dict(num_key_value_heads=6),
        flips=flips_of(LLAMA),
        older=plain_rope(),
        grads=True, beams=True,
    ),
    "llama_gqa": dict(
        config=LLAMA3,
        flips=flips_of(LLAMA3) | {
            "llama3 → default rope": rope(LLAMA, rope_type="default"),
            "llama3 → linear rope": rope(LLAMA, rope_type="linear", factor=8.0),
            "factor 8 → 6": rope(LLAMA3, factor=6.0),
            "low_freq_factor 0.5 → 1": rope(LLAMA3, low_freq_factor=1.0),
            "high_freq_factor 2 → 4": rope(LLAMA3, high_freq_factor=4.0),
            "original context 16 → 24": rope(LLAMA3, original_max_position_embeddings=24),
        },
        older=plain_rope(rope_scaling=LLAMA3_SCALING),
        shards=True, tokenizer=True,
    ),
    "mistral": dict(
        config=SMALL | dict(
            model_type="mistral", head_dim=10, rms_norm_eps=1e-5, sliding_window=WINDOW,
            rope_parameters=LLAMA["rope_parameters"],
        ),
        flips=flips_of(LLAMA) | {
            "window 7 → 8": dict(sliding_window=8),
            "window 7 → none": dict(sliding_window=None),
        },
        older=plain_rope(),
        dtype="bfloat16",
    ),
    "gemma2": dict(
        config=GEMMA2,
        flips={
            "eps 1e-5 → 1e-6": dict(rms_norm_eps=1e-6),
            "theta 500 → 600": rope(GEMMA2, rope_theta=600.0),
            "tanh gelu → exact gelu": dict(hidden_activation="gelu"),
            "window 7 → 8": dict(sliding_window=8),
            "windows in even → odd layers": dict(
                layer_types=["full_attention", "sliding_attention", "full_attention"]
            ),
            "windows in all layers": dict(layer_types=["sliding_attention"] * 3),
            "query scale 7 → head width": dict(query_pre_attn_scalar=10),
            "attention softcap 2 → 2.2": dict(attn_logit_softcapping=2.2),
            "attention softcap → none": dict(attn_logit_softcapping=None),
            "final softcap 3 → 3.3": dict(final_logit_softcapping=3.3),
            "final softcap → none": dict(final_logit_softcapping=None),
        },
        older=plain_rope(layer_types=None),
        embedding=0.01, grads=True,
    ),
    "gemma3": dict(
        config=GEMMA3,
        flips={
            "eps 1e-5 → 1e-6": dict(rms_norm_eps=1e-6),
            "tanh gelu → exact gelu": dict(hidden_activation="gelu"),
            "window 7 → 8": dict(sliding_window=8),
            "query scale 7 → head width": dict(query_pre_attn_scalar=10),
            "five of six → all local": dict(layer_types=["sliding_attention"] * 7),
            "five of six → four of five": dict(
                layer_types=["full_attention" if i == 4 else "sliding_attention" for i in range(7)]
            ),
            "local theta 100 → 120": rope(
                GEMMA3, sliding_attention=dict(rope_type="default", rope_theta=120.0)
            ),
            "global theta 3000 → 100": rope(
                GEMMA3, full_attention=dict(rope_type="linear", rope_theta=100.0, factor=8.0)
            ),
            "global rope linear → default": rope(
                GEMMA3, full_attention=dict(rope_type="default", rope_theta=3000.0)
            ),
            "local rope default → linear": rope(
                GEMMA3, sliding_attention=dict(rope_type="linear", rope_theta=100.0, factor=8.0)
            ),
        },
        older=dict(
            rope_parameters=None, rope_theta=3000.0, rope_local_base_freq=100.0, layer_types=None,
            rope_scaling=dict(rope_type="linear", factor=8.0), sliding_window_pattern=6,
            _sliding_window_pattern=None,
        ),
        embedding=0.01,
    ),
    "phi3_longrope": dict(
        config=PHI3_LONG,
        flips=flips_of(PHI3_LONG) | {
            "long factors → short factors": rope(PHI3_LONG, long_factor=LONGROPE["short_factor"]),
            "last long factor 8 → 6": rope(PHI3_LONG, long_factor=[1.5, 2.0, 3.5, 6.0, 6.0]),
            "attention factor → 1": rope(PHI3_LONG, attention_factor=1.0),
        },
        older=plain_rope(
            original_max_position_embeddings=12, rope_scaling=LONGROPE | dict(type="longrope")
        ),
        prompts=(17, 14), short=10,
    ),
    "llama_linear": dict(
        config=LLAMA_LINEAR,
        flips={
            "linear → default rope": rope(LLAMA, rope_type="default"),
            "factor 4 → 3.5": rope(LLAMA_LINEAR, factor=3.5),
        },
        older=plain_rope(rope_scaling=dict(type="linear", factor=4.0)),
    ),
    "llama_bias": dict(
        config=LLAMA | dict(
            attention_bias=True, mlp_bias=True, tie_word_embeddings=True, num_hidden_layers=1
        ),
        flips=flips_of(LLAMA),
        older=plain_rope(),
    ),
    "gemma": dict(
        config=GEMMA1,
        flips={
            "eps 1e-5 → 1e-6": dict(rms_norm_eps=1e-6),
            "theta 500 → 600": rope(GEMMA1, rope_theta=600.0),
            "tanh gelu → exact gelu": dict(hidden_act="gelu_python"),
        },
        # Gemma 1 was published with this name but uses tanh GELU.
        older=plain_rope(hidden_act="gelu", hidden_activation=None),
        embedding=0.01,
    ),
    "phi3": dict(
        config=PHI3,
        flips=flips_of(PHI3) | {
            "window 7 → 8": dict(sliding_window=8),
            "window 7 → none": dict(sliding_window=None),
            "rotary 0.6 → 0.4 of the width": rope(PHI3, partial_rotary_factor=0.4),
            "rotary 0.6 → all of the width": rope(PHI3, partial_rotary_factor=1.0),
        },
        older=plain_rope(partial_rotary_factor=0.6),
    ),
    "qwen2": dict(config=QWEN2, flips=flips_of(QWEN2), older=plain_rope(layer_types=None)),
    "qwen2_window": dict(
        config=QWEN2 | QWEN_WINDOW | dict(tie_word_embeddings=False),
        flips={
            "window 7 → 8": dict(sliding_window=8),
            "window 7 → none": dict(use_sliding_window=False),
            "windows from layer 1 → 0": dict(max_window_layers=0),
            "windows from layer 1 → 2": dict(max_window_layers=2),
        },
        older=plain_rope(layer_types=None),
    ),
    "qwen3": dict(
        config=QWEN2 | dict(model_type="qwen3", head_dim=6, tie_word_embeddings=False),
        flips=flips_of(QWEN2),
        older=plain_rope(layer_types=None),
    ),
    "qwen3_window": dict(
        config=QWEN2 | QWEN_WINDOW | dict(model_type="qwen3", head_dim=6, attention_bias=True),
        flips={
            "window 7 → 8": dict(sliding_window=8),
            "windows from layer 1 → 2": dict(max_window_layers=2),
        },
        older=plain_rope(layer_types=None),
    ),
    "cohere": dict(
        config=COHERE,
        flips={
            "eps 1e-5 → 1e-6": dict(layer_norm_eps=1e-6),
            "theta 500 → 600": rope(COHERE, rope_theta=600.0),
            "silu → exact gelu": dict(hidden_act="gelu"),
            "logit scale 42^-½ → 40^-½": dict(logit_scale=40**-0.5),
        },
        older=plain_rope(),
        embedding=0.06,
    ),
}  # fmt: skip
