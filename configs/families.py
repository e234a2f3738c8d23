"""Published architectures as data: what each source says, by config section.

`FAMILIES[name]` has `source` and, for each section of `configs/base.py`, the keys it sets. Batch
sizes are published in tokens, "0.5M" say; here they are sequences of the family's context. What a
source does not state stays at the default of base.py. docs/families.md explains the keys.
"""

_GPT2 = "Radford et al. 2019, table 2; github.com/openai/gpt-2"
_GPT3 = "Brown et al. 2020 (arXiv:2005.14165), table 2.1, appendix B"
_PALM = "Chowdhery et al. 2022 (arXiv:2204.02311), section 2, table 1, section 5"
_LLAMA = "Touvron et al. 2023 (arXiv:2302.13971), table 2"
_LLAMA2 = "Touvron et al. 2023 (arXiv:2307.09288), tables 1 and 16; github.com/meta-llama/llama"
_LLAMA3 = "Grattafiori et al. 2024 (arXiv:2407.21783), table 3; github.com/meta-llama/llama-models"
_MISTRAL = "Jiang et al. 2023 (arXiv:2310.06825), table 1; config.json of Mistral-7B-v0.1"
_GEMMA = "Mesnard et al. 2024 (arXiv:2403.08295), table 1; config.json of google/gemma-*"
_GEMMA2 = "Rivière et al. 2024 (arXiv:2408.00118), table 1; config.json of google/gemma-2-*"
_GEMMA3 = "Kamath et al. 2025 (arXiv:2503.19786), section 2; config.json of google/gemma-3-*"
_PHI3 = "Abdin et al. 2024 (arXiv:2404.14219), section 2; config.json of microsoft/Phi-3-*"
_QWEN25 = "Yang et al. 2024 (arXiv:2412.15115), table 1; config.json of Qwen/Qwen2.5-*"
_QWEN3 = "Yang et al. 2025 (arXiv:2505.09388), table 1; config.json of Qwen/Qwen3-*"

# LLaMA's block, the base of most later families.
_BLOCK = dict(
    norm="rmsnorm",
    norm_eps=1e-6,
    positions="rotary",
    activation="silu",
    gated=True,
    attention_bias=False,
    mlp_bias=False,
    tie_embeddings=False,
    init="normal",
)
# Phi-3-mini-128k-instruct, config.json of July 2024: a divisor for each of 48 pairs.
_PHI3_SHORT = (
    *(1.1, 1.1, 1.1, 1.3, 1.35, 1.35, 1.4, 1.55, *[2.0] * 17, *[2.05] * 6, 2.1, 2.1, 2.15),
    *(*[2.25] * 5, 2.4, 2.45, 2.5, 2.7, 2.7, 2.75, 2.8, 2.9, 3.05),
)
_PHI3_LONG = (
    *(1.07, 1.12, 1.15, 1.42, 1.5699999, 1.8, 2.1299999, 2.1299999, 3.01, 5.9100003, 6.9500003),
    *(9.070001, 9.93, 10.71, 11.13, 14.61, 15.409999, 19.81, 37.28, 38.28, 38.6, 40.120003),
    *(46.200005, 50.940006, 53.660007, 54.93739, 56.89739, 57.287388, 59.987385, 60.867386),
    *(60.887386, 61.717392, 62.917393, 62.957394, 63.417393, 63.817394, 63.837395, 63.897396),
    *(63.937397, 64.0674, 64.11435, 64.12435, 64.15435, 64.19435, 64.244354, 64.574356, 64.69),
    64.76,
)


def gpt2(n_layers: int, d_model: int) -> dict:
    """Heads of 64. The optimizer is not published."""
    model = dict(
        vocab_size=50257,
        context_length=1024,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=d_model // 64,
    )
    return dict(source=_GPT2, model=model, train=dict(batch_size=512))


def gpt3(n_layers, d_model, n_heads, head_dim, batch_size, learning_rate) -> dict:
    """GPT-2's block. The paper's alternating sparse attention has no published pattern: here it is
    dense."""
    model = dict(
        vocab_size=50257,
        context_length=2048,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        head_dim=head_dim,
    )
    return dict(
        source=_GPT3,
        model=model,
        train=dict(batch_size=batch_size, duration="3e11 tokens"),
        optimizer=dict(learning_rate=learning_rate, b2=0.95, weight_decay=0.1, clip_norm=1.0),
        # The paper's cosine ends at 260e9 tokens and then stays at 10 %; ours ends with the run.
        schedule=dict(name="cosine", warmup="3.75e8 tokens", final=0.1),
    )


def palm(n_layers: int, d_model: int, n_heads: int, batch_size: int, tokens: str) -> dict:
    """Attention and MLP side by side, one key/value head, LayerNorm without bias, heads of 256.

    The batch size is the final one; the paper doubles it once or twice. The paper's Adafactor is
    not factored, keeps a first moment and scales updates by the parameter's RMS. Its learning rate
    is 1e-2 for 10,000 steps, where ours warms up, then falls as 1/√step, like ours. Its weight
    decay is the square of the learning rate, which ours equals at the peak.
    """
    model = dict(
        vocab_size=256_000,
        context_length=2048,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=1,
        head_dim=256,
        d_ff=4 * d_model,
        norm_eps=1e-6,
        norm_bias=False,
        norm_position="parallel",
        positions="rotary",
        rope_layout="interleaved",  # as in RoPE's paper; the layouts differ by a permutation
        activation="silu",
        gated=True,
        attention_bias=False,
        mlp_bias=False,
        logit_scale=d_model**-0.5,
        init="fan_in",
        embedding_std=1.0,
    )
    return dict(
        source=_PALM,
        model=model,
        train=dict(batch_size=batch_size, duration=f"{tokens} tokens", z_loss=1e-4),
        optimizer=dict(name="adafactor", learning_rate=1e-2, weight_decay=1e-2, clip_norm=1.0),
        schedule=dict(name="inverse_sqrt", warmup="10000 steps"),
    )


def llama(n_layers, d_model, n_heads, d_ff, tokens, learning_rate, **changes) -> dict:
    """RMSNorm, rotary positions, SwiGLU, no biases, untied head. No initialisation is published."""
    model = _BLOCK | dict(
        vocab_size=32000,
        context_length=2048,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_ff=d_ff,
    )
    model |= changes
    return dict(
        source=_LLAMA,
        model=model,
        train=dict(batch_size=2**22 // model["context_length"], duration=f"{tokens} tokens"),
        optimizer=dict(learning_rate=learning_rate, b2=0.95, weight_decay=0.1, clip_norm=1.0),
        schedule=dict(name="cosine", warmup="2000 steps", final=0.1),
    )


def llama2(n_layers, d_model, n_heads, d_ff, learning_rate, **changes) -> dict:
    """Twice LLaMA's context and data; grouped queries at 70B."""
    family = llama(
        n_layers, d_model, n_heads, d_ff, "2e12", learning_rate,
        context_length=4096, norm_eps=1e-5, **changes,
    )  # fmt: skip
    family["optimizer"]["eps"] = 1e-5
    return family | dict(source=_LLAMA2)


def llama3(n_layers, d_model, n_heads, d_ff, tokens, learning_rate=0.0, **changes) -> dict:
    """8 key/value heads, a vocabulary of 128k, theta 500,000. Only 405B's batch size is published.

    8B and 70B are the first release, with a context of 8192; a `rope_factor` gives the 131,072
    tokens of the later ones.
    """
    model = _BLOCK | dict(
        vocab_size=128_256,
        context_length=8192,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=8,
        d_ff=d_ff,
        norm_eps=1e-5,
        rope_theta=500_000.0,
    )
    if "rope_factor" in changes:
        model |= dict(context_length=131_072, rope_scaling="llama3", rope_original_context=8192)
    family = dict(source=_LLAMA3, model=model | changes, train=dict(duration=f"{tokens} tokens"))
    if not learning_rate:
        return family
    return family | dict(
        optimizer=dict(learning_rate=learning_rate, weight_decay=0.1),
        # To 8e-7 from 8e-5 at 405B.
        schedule=dict(name="cosine", warmup="8000 steps", final=0.01),
    )


def mistral(n_layers, d_model, n_heads, d_ff) -> dict:
    """LLaMA's block with grouped queries and a window in every layer. No training is published."""
    model = _BLOCK | dict(
        vocab_size=32000,
        context_length=8192,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=8,
        d_ff=d_ff,
        norm_eps=1e-5,
        window=4096,
    )
    return dict(source=_MISTRAL, model=model)


def gemma(n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, tokens, **changes) -> dict:
    """GEGLU, 1 + w in the norms, embeddings times √d, a tied head over 256k tokens."""
    model = _BLOCK | dict(
        vocab_size=256_000,
        context_length=8192,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
        d_ff=d_ff,
        norm_offset=True,
        activation="gelu_tanh",
        embedding_scale=True,
        tie_embeddings=True,
    )
    return dict(source=_GEMMA, model=model | changes, train=dict(duration=f"{tokens} tokens"))


def gemma2(*sizes, **changes) -> dict:
    """Norms before and after each branch, windows in even layers, both softcaps."""
    keys = dict(
        norm_position="both", window=4096, window_pattern="LG", attention_softcap=50.0,
        logit_softcap=30.0,
    )  # fmt: skip
    return gemma(*sizes, **keys | changes) | dict(source=_GEMMA2)


def gemma3(*sizes, window=1024, **changes) -> dict:
    """qk-norm in place of softcaps, windows in five of six layers, slow rotation in the sixth.

    The larger models have a vocabulary of 262,208, whose last 64 tokens represent images.
    """
    keys = dict(
        vocab_size=262_208, context_length=131_072, norm_position="both", qk_norm=True,
        rope_theta=1e6, rope_theta_local=1e4, window=window, window_pattern="LLLLLG",
    )  # fmt: skip
    if window == 1024:
        keys |= dict(rope_scaling="linear", rope_factor=8.0)
    return gemma(*sizes, **keys | changes) | dict(source=_GEMMA3)


def phi3(n_layers, d_model, n_heads, n_kv_heads, d_ff, tokens, **changes) -> dict:
    """LLaMA's block with a window of 2047. Small's blocksparse attention is not supported."""
    model = _BLOCK | dict(
        vocab_size=32_064,
        context_length=4096,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_ff=d_ff,
        norm_eps=1e-5,
        window=2047,
    )
    return dict(source=_PHI3, model=model | changes, train=dict(duration=f"{tokens} tokens"))


def qwen25(n_layers, d_model, n_heads, n_kv_heads, d_ff, **changes) -> dict:
    """LLaMA's block with biases on queries, keys and values; tied embeddings up to 3B.

    These are the base models; the instruct models have an epsilon of 1e-6 in all sizes.
    """
    model = _BLOCK | dict(
        vocab_size=152_064,
        context_length=131_072,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        d_ff=d_ff,
        rope_theta=1e6,
        attention_bias=True,
        out_bias=False,
    )
    return dict(source=_QWEN25, model=model | changes, train=dict(duration="1.8e13 tokens"))


def qwen3(n_layers, d_model, n_heads, n_kv_heads, d_ff, **changes) -> dict:
    """qk-norm in place of biases, heads of 128 at every width; tied embeddings up to 4B."""
    model = _BLOCK | dict(
        vocab_size=151_936,
        context_length=32_768,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=n_kv_heads,
        head_dim=128,
        d_ff=d_ff,
        rope_theta=1e6,
        qk_norm=True,
    )
    return dict(source=_QWEN3, model=model | changes, train=dict(duration="3.6e13 tokens"))


_SMALL_QWEN25 = dict(vocab_size=151_936, tie_embeddings=True)
FAMILIES = {
    "gpt2": gpt2(12, 768),
    "gpt2-medium": gpt2(24, 1024),
    "gpt2-large": gpt2(36, 1280),
    "gpt2-xl": gpt2(48, 1600),
    # As printed: 1.3b has 24 x 128 = 3072 wide heads, which makes it 1.52B (16 heads would be
    # 1.32B); 13b has d_model 5140 beside 40 x 128 = 5120.
    "gpt3-125m": gpt3(12, 768, 12, 64, 256, 6.0e-4),
    "gpt3-350m": gpt3(24, 1024, 16, 64, 256, 3.0e-4),
    "gpt3-760m": gpt3(24, 1536, 16, 96, 256, 2.5e-4),
    "gpt3-1.3b": gpt3(24, 2048, 24, 128, 512, 2.0e-4),
    "gpt3-2.7b": gpt3(32, 2560, 32, 80, 512, 1.6e-4),
    "gpt3-6.7b": gpt3(32, 4096, 32, 128, 1024, 1.2e-4),
    "gpt3-13b": gpt3(40, 5140, 40, 128, 1024, 1.0e-4),
    "gpt3-175b": gpt3(96, 12288, 96, 128, 1536, 0.6e-4),
    "palm-8b": palm(32, 4096, 16, 512, "7.8e11"),
    "palm-62b": palm(64, 8192, 32, 1024, "7.95e11"),
    "palm-540b": palm(118, 18432, 48, 2048, "7.8e11"),
    "llama-7b": llama(32, 4096, 32, 11008, "1e12", 3.0e-4),
    "llama-13b": llama(40, 5120, 40, 13824, "1e12", 3.0e-4),
    "llama-33b": llama(60, 6656, 52, 17920, "1.4e12", 1.5e-4),
    "llama-65b": llama(80, 8192, 64, 22016, "1.4e12", 1.5e-4),
    "llama2-7b": llama2(32, 4096, 32, 11008, 3.0e-4),
    "llama2-13b": llama2(40, 5120, 40, 13824, 3.0e-4),
    "llama2-70b": llama2(80, 8192, 64, 28672, 1.5e-4, n_kv_heads=8),
    "llama3-8b": llama3(32, 4096, 32, 14336, "1.5e13", 3e-4),
    "llama3-70b": llama3(80, 8192, 64, 28672, "1.5e13", 1.5e-4),
    "llama3-405b": llama3(126, 16384, 128, 53248, "1.56e13", 8e-5, rope_factor=8.0),
    "llama3.2-1b": llama3(16, 2048, 32, 8192, "9e12", rope_factor=32.0, tie_embeddings=True),
    "llama3.2-3b": llama3(28, 3072, 24, 8192, "9e12", rope_factor=32.0, tie_embeddings=True),
    "mistral-7b": mistral(32, 4096, 32, 14336),
    "gemma-2b": gemma(18, 2048, 8, 1, 256, 16384, "3e12"),
    "gemma-7b": gemma(28, 3072, 16, 16, 256, 24576, "6e12"),
    "gemma2-2b": gemma2(26, 2304, 8, 4, 256, 9216, "2e12"),
    "gemma2-9b": gemma2(42, 3584, 16, 8, 256, 14336, "8e12"),
    "gemma2-27b": gemma2(46, 4608, 32, 16, 128, 36864, "1.3e13", query_scale=144**-0.5),
    "gemma3-1b": gemma3(
        26, 1152, 4, 1, 256, 6912, "2e12", window=512, vocab_size=262_144, context_length=32_768
    ),
    "gemma3-4b": gemma3(34, 2560, 8, 4, 256, 10240, "4e12"),
    "gemma3-12b": gemma3(48, 3840, 16, 8, 256, 15360, "1.2e13"),
    "gemma3-27b": gemma3(62, 5376, 32, 16, 128, 21504, "1.4e13", query_scale=168**-0.5),
    "phi3-mini-4k": phi3(32, 3072, 32, 32, 8192, "3.3e12"),
    "phi3-mini-128k": phi3(
        32,
        3072,
        32,
        32,
        8192,
        "3.3e12",
        context_length=131_072,
        window=0,
        rope_scaling="longrope",
        rope_original_context=4096,
        rope_short_factors=_PHI3_SHORT,
        rope_long_factors=_PHI3_LONG,
    ),
    "phi3-medium-4k": phi3(40, 5120, 40, 10, 17920, "4.8e12"),
    "qwen2.5-0.5b": qwen25(24, 896, 14, 2, 4864, **_SMALL_QWEN25, context_length=32_768),
    "qwen2.5-1.5b": qwen25(28, 1536, 12, 2, 8960, **_SMALL_QWEN25),
    "qwen2.5-3b": qwen25(36, 2048, 16, 2, 11008, **_SMALL_QWEN25, context_length=32_768),
    "qwen2.5-7b": qwen25(28, 3584, 28, 4, 18944),
    "qwen2.5-14b": qwen25(48, 5120, 40, 8, 13824, norm_eps=1e-5),
    "qwen2.5-32b": qwen25(64, 5120, 40, 8, 27648, norm_eps=1e-5),
    "qwen2.5-72b": qwen25(80, 8192, 64, 8, 29568, norm_eps=1e-5),
    "qwen3-0.6b": qwen3(28, 1024, 16, 8, 3072, tie_embeddings=True),
    "qwen3-1.7b": qwen3(28, 2048, 16, 8, 6144, tie_embeddings=True),
    "qwen3-4b": qwen3(36, 2560, 32, 8, 9728, tie_embeddings=True),
    "qwen3-8b": qwen3(36, 4096, 32, 8, 12288),
    "qwen3-14b": qwen3(40, 5120, 40, 8, 17408),
    "qwen3-32b": qwen3(64, 5120, 64, 8, 25600),
}
