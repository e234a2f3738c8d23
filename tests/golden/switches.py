"""Golden cases that test single switches. isoflop does not load these model families.

Each is a transformers model whose block isoflop can express, written as one npz: `config` (JSON),
`tokens`, `logits` and every weight as `weight/NAME`, with transformers' names and shapes. Biases of
the head are zero, because isoflop's head has none.
"""

from cases import COMMON

GPT = COMMON | dict(n_embd=40, n_head=4, n_layer=1, resid_pdrop=0.0, embd_pdrop=0.0)
SMALL = COMMON | dict(
    hidden_size=40, num_attention_heads=4, num_hidden_layers=1, max_position_embeddings=48
)
PHI_ROPE = dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=0.6)

SWITCHES = {
    # ALiBi with 6 heads, not a power of two; LayerNorm without bias; exact GELU; tied.
    "alibi_mpt": dict(
        config=COMMON | dict(
            model_type="mpt", d_model=36, n_heads=6, n_layers=1, max_seq_len=48,
            layer_norm_epsilon=1e-5,
        ),
        flips={
            "eps 1e-5 → 1e-6": dict(layer_norm_epsilon=1e-6),
        },
    ),
    # Parallel block after one LayerNorm; interleaved rotary on 4 of 10; tanh GELU; biases in the
    # MLP only.
    "parallel_interleaved_gptj": dict(
        config=GPT | dict(
            model_type="gptj", n_inner=56, n_positions=48, rotary_dim=4, attn_pdrop=0.0,
            layer_norm_epsilon=1e-5,
        ),
        flips={
            "rotary 4 → 6 of 10": dict(rotary_dim=6),
            "tanh gelu → exact gelu": dict(activation_function="gelu"),
            "eps 1e-5 → 1e-6": dict(layer_norm_epsilon=1e-6),
        },
    ),
    # Parallel block after one LayerNorm; half-split rotary on 6 of 10; tanh GELU; all biases.
    "parallel_partial_phi": dict(
        config=SMALL | dict(
            model_type="phi", intermediate_size=56, num_key_value_heads=2, layer_norm_eps=1e-5,
            rope_parameters=PHI_ROPE,
        ),
        flips={
            "rotary 6 → 4 of 10": dict(rope_parameters=PHI_ROPE | dict(partial_rotary_factor=0.4)),
            "theta 500 → 600": dict(rope_parameters=PHI_ROPE | dict(rope_theta=600.0)),
            "eps 1e-5 → 1e-6": dict(layer_norm_eps=1e-6),
        },
    ),
    # ReLU; learned positions whose first two rows are never used; tied.
    "relu_opt": dict(
        config=SMALL | dict(model_type="opt", ffn_dim=56, dropout=0.0),
        flips={
            "relu → silu": dict(activation_function="silu"),
            "relu → relu²": dict(activation_function="relu2"),
        },
    ),
    # Norms after each branch and none at the end; ReLU; learned positions; tied.
    "post_opt": dict(
        config=SMALL | dict(
            model_type="opt", ffn_dim=56, dropout=0.0, do_layer_norm_before=False
        ),
        flips={"relu → silu": dict(activation_function="silu")},
    ),
    # Squared ReLU; LayerNorm that multiplies by 1 + weight and has a bias; partial rotary; grouped
    # keys.
    "relu2_nemotron": dict(
        config=SMALL | dict(
            model_type="nemotron", intermediate_size=52, num_key_value_heads=2, head_dim=10,
            norm_eps=1e-5, rope_parameters=PHI_ROPE,
        ),
        flips={
            "relu² → relu": dict(hidden_act="relu"),
            "eps 1e-5 → 1e-6": dict(norm_eps=1e-6),
            "theta 500 → 600": dict(rope_parameters=PHI_ROPE | dict(rope_theta=600.0)),
        },
    ),
    # Sinusoidal positions, all sines before all cosines (interleaving them permutes the width);
    # embeddings times √d; ReLU; eps 1e-6; tied.
    "sinusoidal_ctrl": dict(
        config=GPT | dict(model_type="ctrl", dff=56, n_positions=48),
        flips={},
    ),
}  # fmt: skip
