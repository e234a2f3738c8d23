"""Tests parameter and FLOP counts against the real model and published numbers."""

import itertools

import jax
import pytest

from model.transformer import count
from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, init

COMPONENT_OF = {
    ("embed",): "embedding",
    ("position",): "position",
    ("blocks", "attention"): "attention",
    ("blocks", "mlp"): "mlp",
    ("blocks", "attention_norm"): "norm",
    ("blocks", "mlp_norm"): "norm",
    ("final_norm",): "norm",
    ("head",): "head",
}


def config(**changes) -> ModelConfig:
    keys = dict(
        vocab_size=31, context_length=9, n_layers=3, d_model=20, n_heads=4, n_kv_heads=2,
        head_dim=6, d_ff=28,
    )  # fmt: skip
    return ModelConfig(**{**keys, **changes})


def built(cfg: ModelConfig) -> dict[str, int]:
    """Parameters of the real module by component."""
    counts = dict.fromkeys(count.COMPONENTS, 0)
    shapes = jax.eval_shape(lambda key: init(cfg, key), jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        names = tuple(p.key for p in path)
        counts[COMPONENT_OF[names[:2] if names[0] == "blocks" else names[:1]]] += leaf.size
    return counts


SWITCHES = list(
    itertools.product(
        [dict(norm="layernorm"), dict(norm="layernorm", norm_bias=False), dict(norm="rmsnorm")],
        [dict(gated=False, attention_bias=True), dict(gated=True, attention_bias=False)],
        [dict(mlp_bias=True), dict(mlp_bias=False)],
        [dict(positions="learned", tie_embeddings=True), dict(positions="rotary", n_kv_heads=1),
         dict(positions="none", tie_embeddings=False, n_kv_heads=4)],
    )
)  # fmt: skip


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda s: "")
def test_parameters_are_those_of_the_model(switches):
    cfg = config(**{k: v for part in switches for k, v in part.items()})
    assert count.parameters(cfg) == built(cfg)


# Published facts: Brown et al. 2020 (GPT-3 175B) and Hoffmann et al. 2022 (Chinchilla 70B).
GPT3 = config(
    vocab_size=50257, context_length=2048, n_layers=96, d_model=12288, n_heads=96, n_kv_heads=96,
    head_dim=128, d_ff=49152,
)  # fmt: skip
CHINCHILLA = config(
    vocab_size=32000, context_length=2048, n_layers=80, d_model=8192, n_heads=64, n_kv_heads=64,
    head_dim=128, d_ff=32768,
)  # fmt: skip
PUBLISHED = {
    count.kernels: (173_946_175_488, 64_424_509_440),
    count.kaplan: (1_058_172_567_552, 394_600_120_320),
    count.appendix_f: (737_449_743_482_880, 277_089_815_101_440),
    count.chinchilla: (1_080_248_647_680, 405_893_283_840),
    lambda cfg: count.palm(cfg) - count.six_n(cfg): (28_991_029_248, 16_106_127_360),
}


@pytest.mark.parametrize("formula", PUBLISHED)
def test_published_flops(formula):
    assert (formula(GPT3), formula(CHINCHILLA)) == PUBLISHED[formula]


def test_palm_540b_mfu():
    """46.2 %, and 45.7 % without attention, at 238.3k tokens/s on 6144 TPU v4 of 275 TFLOP/s."""
    cfg = ModelConfig(
        vocab_size=256_000, context_length=2048, n_layers=118, d_model=18_432, n_heads=48,
        n_kv_heads=1, head_dim=256, d_ff=4 * 18_432, gated=True, norm_bias=False,
        attention_bias=False, mlp_bias=False, positions="rotary",
    )  # fmt: skip
    assert sum(count.parameters(cfg).values()) == pytest.approx(540.35e9, rel=1e-4)
    rate = 238.3e3 / (6144 * 275e12)
    assert round(100 * rate * count.flops_per_token(cfg, "palm"), 1) == 46.2
    assert round(100 * rate * count.flops_per_token(cfg, "6nd"), 1) == 45.7


def test_appendix_f_term_by_term():
    """The paper's formula as printed holds for plain attention and MLP only."""

    def printed(cfg):
        S, V, d, L = cfg.context_length, cfg.vocab_size, cfg.d_model, cfg.n_layers
        k, H, f = cfg.head_dim, cfg.n_heads, cfg.d_ff
        attention = 6 * S * d * k * H + 2 * S * S * k * H + 3 * H * S * S + 2 * S * S * k * H
        return 2 * S * V * d + L * (attention + 2 * S * k * H * d + 4 * S * d * f) + 2 * S * d * V

    plain = config(n_kv_heads=4)
    assert count.appendix_f(plain) == printed(plain)
    grouped, gated = config(n_kv_heads=1), config(n_kv_heads=4, gated=True)
    S, d, L = plain.context_length, plain.d_model, plain.n_layers
    saved = 2 * S * L * (2 * d * 3 * plain.head_dim)  # without the keys and values of three heads
    assert printed(grouped) - count.appendix_f(grouped) == saved
    assert count.appendix_f(gated) - printed(gated) == 2 * S * L * d * plain.d_ff


@pytest.mark.parametrize("changes", [{}, dict(gated=True), dict(n_kv_heads=1)])
def test_appendix_f_is_what_the_compiler_counts(changes):
    """Matrix products of the traced forward pass: appendix F without softmax and embedding."""
    cfg = config(tie_embeddings=False, **changes)
    counted = matmul_flops(cfg)
    S, D, V = cfg.context_length, cfg.d_model, cfg.vocab_size
    softmax = 3 * cfg.n_layers * cfg.n_heads * S * S
    assert counted == count.appendix_f(cfg) - softmax - 2 * S * V * D


def matmul_flops(cfg: ModelConfig) -> int:
    """FLOPs of every dot product in the traced forward pass of one sequence."""
    shapes = jax.eval_shape(lambda key: init(cfg, key), jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, cfg.context_length), "int32")
    forward = lambda params, t: Decoder(cfg).apply({"params": params}, t)  # noqa: E731
    return _dots(jax.make_jaxpr(forward)(shapes, tokens).jaxpr)


def _dots(jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            lhs = equation.invars[0].aval.shape
            depth = 1
            for axis in contracted:
                depth *= lhs[axis]
            total += 2 * depth * equation.outvars[0].aval.size
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                total += _dots(value.jaxpr)
    return total


def test_unknown_convention_lists_the_known():
    with pytest.raises(ValueError, match="6nd, kaplan, chinchilla, palm"):
        count.flops_per_token(GPT3, "nd")
