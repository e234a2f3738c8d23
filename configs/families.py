"""This file lists published architectures as data: what each source says, by config section.

`FAMILIES[name]` has `source` and, for each section of `configs/base.py`, the keys it sets. Batch
sizes are published in tokens, "0.5M" say, and given here in sequences of the family's context.
What a source leaves open stays at the default of base.py.
"""

_GPT2 = "Radford et al. 2019, table 2; github.com/openai/gpt-2"
_GPT3 = "Brown et al. 2020 (arXiv:2005.14165), table 2.1, appendix B"
_LLAMA = "Touvron et al. 2023 (arXiv:2302.13971), table 2"
_LLAMA2 = "Touvron et al. 2023 (arXiv:2307.09288), tables 1 and 16; github.com/meta-llama/llama"


def gpt2(n_layers: int, d_model: int) -> dict:
    """Heads of 64. The optimiser was not published."""
    model = dict(
        vocab_size=50257,
        context_length=1024,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=d_model // 64,
    )
    return dict(source=_GPT2, model=model, train=dict(batch_size=512))


def gpt3(n_layers, d_model, n_heads, head_dim, batch_size, learning_rate) -> dict:
    """GPT-2's block. Its alternating sparse attention, of unpublished pattern, is dense."""
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
        # The paper's cosine ends at 260e9 tokens and stays at 10 %; here it ends with the run.
        schedule=dict(name="cosine", warmup="3.75e8 tokens", final=0.1),
    )


def llama(n_layers, d_model, n_heads, d_ff, tokens, learning_rate, **changes) -> dict:
    """RMSNorm, rotary positions, SwiGLU, no biases, free head. No initialisation is published."""
    model = dict(
        vocab_size=32000,
        context_length=2048,
        n_layers=n_layers,
        d_model=d_model,
        n_heads=n_heads,
        d_ff=d_ff,
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
    model |= changes
    return dict(
        source=_LLAMA,
        model=model,
        train=dict(batch_size=2**22 // model["context_length"], duration=f"{tokens} tokens"),
        optimizer=dict(learning_rate=learning_rate, b2=0.95, weight_decay=0.1, clip_norm=1.0),
        schedule=dict(name="cosine", warmup="2000 steps", final=0.1),
    )


def llama2(n_layers, d_model, n_heads, d_ff, learning_rate, **changes) -> dict:
    """Twice the context, twice the data; grouped queries at 70B."""
    family = llama(
        n_layers, d_model, n_heads, d_ff, "2e12", learning_rate,
        context_length=4096, norm_eps=1e-5, **changes,
    )  # fmt: skip
    family["optimizer"]["eps"] = 1e-5
    return family | dict(source=_LLAMA2)


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
    "llama-7b": llama(32, 4096, 32, 11008, "1e12", 3.0e-4),
    "llama-13b": llama(40, 5120, 40, 13824, "1e12", 3.0e-4),
    "llama-33b": llama(60, 6656, 52, 17920, "1.4e12", 1.5e-4),
    "llama-65b": llama(80, 8192, 64, 22016, "1.4e12", 1.5e-4),
    "llama2-7b": llama2(32, 4096, 32, 11008, 3.0e-4),
    "llama2-13b": llama2(40, 5120, 40, 13824, 3.0e-4),
    "llama2-70b": llama2(80, 8192, 64, 28672, 1.5e-4, n_kv_heads=8),
}
